"""Phases over several rings at once."""

from typing import Any

from tests.bench.errors import BenchError
from tests.bench.generator import Nic
from tests.bench.library import ffi, lib
from tests.bench.priority import pinned
from tests.bench.wires import Frames, Wires, address

FRAMES = Frames(64)
DEEP_PAUSE_NS = 3_000_000  # of phases in which workers may have every CPU


class Wide:
    """Phases over all rings of couples (sender, receiver)."""

    def __init__(
        self, wires: Wires, couples: list[tuple[Nic, Nic]], frames: Frames = FRAMES
    ) -> None:
        self._traffics = []
        txs = []
        for sender, receiver in couples:
            for tx in sender.txs:
                self._traffics.append(
                    frames.traffic(address(receiver, wires), address(sender, wires))
                )
                txs.append(tx)
                lib().prepare(tx, self._traffics[-1])
        rxs = [rx for _, receiver in couples for rx in receiver.rxs]
        self._arrays = [
            ffi.new("struct ring *[]", txs),
            ffi.new("struct traffic *[]", self._traffics),
            ffi.new("struct ring *[]", rxs),
        ]
        self._wide = ffi.new("struct wide *")
        self._wide.txs, self._wide.traffics, self._wide.rxs = self._arrays
        self._wide.txs_count, self._wide.rxs_count = len(txs), len(rxs)
        self._wide.paired = len(txs) == len(rxs) == len(couples)
        # What was flooded while the switch learned.
        lib().run_wide_phase(self._wide, 0, ffi.new("struct phase *"))

    def phase(self, count: int, pause_ns: int, cpu: int) -> Any:
        """struct phase *: count frames through each ring."""
        result = ffi.new("struct phase *")
        self._wide.pause_ns = pause_ns
        with pinned(cpu):
            lib().run_wide_phase(self._wide, count, result)
        if result.received != result.sent or result.wrong:
            raise BenchError(
                f"{result.received} of {result.sent} frames arrived, {result.wrong} out of order"
            )
        return result
