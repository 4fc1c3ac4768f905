"""The machine's memcpy, on what a phase of frames moves."""

import os
from statistics import median

from tests.bench.errors import BenchError
from tests.bench.library import ffi, lib, tsc_hz
from tests.bench.memory import SharedMemory
from tests.bench.priority import pinned

PHASES = 500


def memcpy_gbits(frame_bytes: int, count: int, copier_cpu: int, writer_cpu: int) -> float:
    """Gbit/s of copying count frames that another CPU has just written."""
    stride = -(-frame_bytes // 4096) * 4096
    memory = SharedMemory(2 * count * stride + 4096)
    try:
        source, target = (memory.address(memory.alloc(count * stride, 4096)) for _ in range(2))
        cycles = ffi.new("uint64_t[]", PHASES)
        with pinned(writer_cpu):
            rc = lib().copy_phases(
                ffi.cast("uint8_t *", source),
                ffi.cast("uint8_t *", target),
                *(stride, frame_bytes, count, copier_cpu, PHASES, cycles),
            )
        if rc != 0:
            raise BenchError(f"memcpy's thread: {os.strerror(-rc)}")
        seconds = float(median(cycles)) / tsc_hz()
        return frame_bytes * count * 8 / seconds * 1e-9
    finally:
        memory.close()
