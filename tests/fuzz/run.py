"""Run a libFuzzer program of this folder for a short while, under ASan and UBSan."""

import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.c.build import build

SECONDS = int(os.environ.get("FUZZ_SECONDS", "10"))


def fuzz(
    tmp_path: Path,
    source: str,
    seeds: Iterable[bytes],
    *options: str,
    packages: list[str],
    flags: Sequence[str] = (),
) -> None:
    """Fails with the end of what the program says when it finds something.

    flags: for the compiler, beside the usual ones.
    """
    program = build(
        tmp_path,
        f"../fuzz/{source}",
        packages=packages,
        sanitize="fuzzer,address,undefined",
        compiler="clang",
        flags=flags,
    )
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds):
        (corpus / f"seed{number}").write_bytes(seed)
    done = subprocess.run(
        [program, f"-max_total_time={SECONDS}", *options, corpus],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS + 120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
