"""Invariant tested: see vhost_messages.py.  On a build with ASan and UBSan, for a short while;
longer with FUZZ_SECONDS."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.run import SECONDS

ROOT = Path(__file__).resolve().parents[2]
# Seeds that found something once, or nearly.
REGRESSIONS: list[int] = [1189]


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which Python runs on a data plane that checks memory and arithmetic."""
    folder = tmp_path_factory.mktemp("dataplane")
    build = [sys.executable, str(ROOT / "scripts" / "build_core.py"), str(folder)]
    env = os.environ | {"SANITIZE": "address,undefined"}
    done = subprocess.run(build, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    runtimes = [
        subprocess.check_output(["gcc", f"-print-file-name={name}"], text=True).strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    return os.environ | {
        "PYTHONPATH": f"{folder}:{ROOT}",
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:handle_sigbus=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }


def fuzz(env: dict[str, str], *options: str) -> str:
    """What it printed; a finding fails with the seed that shows it again."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tests.fuzz.vhost_messages", *options],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=SECONDS + 120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    return done.stdout


def env_folder(env: dict[str, str]) -> str:
    return env["PYTHONPATH"].split(":")[0]


def test_any_messages_in_any_order(sanitized: dict[str, str]) -> None:
    said = fuzz(sanitized, f"--seconds={SECONDS}")
    print(said)
    assert env_folder(sanitized) in said.splitlines()[0], "another build was loaded"
    assert "sequences" in said


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_seeds_that_found_something(sanitized: dict[str, str], seed: int) -> None:
    assert "1 sequences" in fuzz(sanitized, "--count=1", f"--seed={seed}")
