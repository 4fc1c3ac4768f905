"""Build _dataplane, the C of all packages in one cffi extension (API mode).

setuptools calls it through setup.py.  By hand, `build_core.py DIR` makes a second build in DIR,
with SANITIZE=address,undefined (any list of gcc's) or COVERAGE=1 (gcov) instrumented.

One module, because a worker calls vhost and mesh ports as plain C.  The declarations are those of
each package's abi.h, verbatim: cffi compares our sizes and offsets with the compiler's.
"""

import os
import sys
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent
# The guarded header that declares each package's abi.h.
HEADERS = {
    "vswitch": "vswitch/core/port.h",
    "vhost": "vhost/core/vhost_abi.h",
    "mesh": "mesh/core/mesh_abi.h",
}
PACKAGES = [package for package, header in HEADERS.items() if (ROOT / header).exists()]
BY_HAND = __name__ == "__main__"
COVERAGE = bool(os.environ.get("COVERAGE"))
LIBRARIES = ("IPSec_MB", "sodium")
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Wvla", "-Werror"]


def files(pattern: str) -> list[str]:
    """Paths of the C files or headers of all packages: relative to the root, as setuptools wants
    them, but absolute by hand, as cffi compiles in DIR."""
    return sorted(
        str(path if BY_HAND else path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package / "core").glob(pattern)
    )


def compile_args() -> list[str]:
    """Flags for cc."""
    args = ["-std=gnu11", "-O2", "-g", "-fvisibility=hidden", "-fno-strict-aliasing", *WARNINGS]
    # cffi's generated wrappers, compiled with the same flags, leave some of their own unused.
    args += ["-Wno-unused-parameter", "-Wno-missing-field-initializers"]
    sanitizers = os.environ.get("SANITIZE", "")
    if sanitizers:
        args += [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer", "-O1"]
    if COVERAGE:
        # Lines as they are written: not merged, not inlined; counters that threads may share.
        args += ["--coverage", "-O0", "-fprofile-update=atomic"]
    return args


def link_args() -> list[str]:
    sanitizers = os.environ.get("SANITIZE", "")
    return [f"-fsanitize={sanitizers}"] if sanitizers else ["--coverage"] if COVERAGE else []


ffibuilder = FFI()
for package in PACKAGES:
    ffibuilder.cdef((ROOT / package / "core" / "abi.h").read_text())

ffibuilder.set_source(
    "_dataplane",
    "\n".join(f'#include "{HEADERS[package]}"' for package in PACKAGES),
    sources=files("*.c"),
    depends=files("*.h"),
    include_dirs=[str(ROOT)],
    libraries=list(LIBRARIES),
    extra_compile_args=compile_args(),
    extra_link_args=link_args(),
    py_limited_api=not (os.environ.get("SANITIZE") or COVERAGE),
)

if BY_HAND:
    print(ffibuilder.compile(tmpdir=sys.argv[1]))
