"""The load generator's C, compiled when its sources changed."""

import functools
import hashlib
import os
import subprocess
from typing import Any

from cffi import FFI

from tests.bench.errors import BenchError
from tests.fakes.daemons import ROOT

FOLDER = ROOT / "tests" / "bench"
HEADERS = ("abi.h", "ring.h")
SOURCES = (
    "ring.c",
    "frames.c",
    "phase.c",
    "copy.c",
    "pings.c",
    "taps.c",
    "wide.c",
    "routes.c",
    "datagrams.c",
    "streams.c",
)
# Of the switch itself, measured alone.
PARTS = ("vswitch/core/lpm.c",)
FLAGS = ("-std=gnu11", "-O3", "-march=native", "-Wall", "-Wextra", "-Wshadow", "-Werror")

ffi: Any = FFI()  # its objects have the fields of abi.h, which no checker knows
ffi.cdef((FOLDER / "abi.h").read_text())


@functools.cache
def lib() -> Any:
    """The functions of abi.h."""
    sources = [*(FOLDER / name for name in SOURCES), *(ROOT / name for name in PARTS)]
    headers = [*(FOLDER / name for name in HEADERS), *(ROOT / "vswitch" / "core").glob("*.h")]
    text = b"".join(path.read_bytes() for path in sorted([*headers, *sources]))
    library = ROOT / ".cache" / "bench" / f"loadgen-{hashlib.sha256(text).hexdigest()[:16]}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        part = library.with_suffix(f".{os.getpid()}")
        command = ["cc", *FLAGS, f"-I{ROOT}", "-shared", "-fPIC", "-o", str(part)]
        command += [*map(str, sources), "-lpthread"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchError(f"the load generator does not compile:\n{done.stderr}")
        part.rename(library)
    return ffi.dlopen(str(library))


@functools.cache
def tsc_hz() -> int:
    return int(lib().tsc_per_second())
