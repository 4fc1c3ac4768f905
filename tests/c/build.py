"""Compile a C main of this folder with the C of some packages."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def build(
    tmp_path: Path,
    source: str,
    *,
    packages: list[str],
    sanitize: str,
    compiler: str = "gcc",
    flags: Sequence[str] = (),
) -> Path:
    """Returns the program."""
    program = tmp_path / Path(source).stem
    command = [
        *(compiler, "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror"),
        # TSan does not model fences; none of ours is what makes data visible, so it loses nothing.
        *(["-Wno-tsan"] if compiler == "gcc" else []),
        *(f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-fno-strict-aliasing"),
        *flags,
        f"-I{ROOT}",
        *("-o", str(program), str(ROOT / "tests" / "c" / source)),
        *(str(path) for name in packages for path in sorted((ROOT / name / "core").glob("*.c"))),
        *("-lsodium", "-lIPSec_MB", "-lpthread"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def run(program: Path, timeout_s: float) -> str:
    """Returns what the program printed; a sanitizer's report or a failed check is an error."""
    done = subprocess.run(
        [str(program)], capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
