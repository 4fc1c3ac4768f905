"""Keys in memory: nowhere but where they are locked, and nowhere once their session is over."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mesh.wire import Cipher
from tests.fakes import memory
from tests.fakes.memory import WORD_BYTES

KEYS_BYTES = 32 + 32 + 16 + 16
MADE_OF_KEYS = 20  # of the words that a cipher made of them, so many are searched for


@pytest.fixture(params=list(Cipher))
def keyholder(request) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "tests.fakes.keyholder", str(request.param.value)]
    # As it is shipped: under ASan, which runs us as well, mlock() does nothing.
    plain = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "DATAPLANE_DIR")}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=plain
    )
    yield process
    process.stdin.close()
    assert process.wait() == 0
    process.stdout.close()


def tell(process: subprocess.Popen, line: str) -> str:
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_keys_are_locked_and_nowhere_once_their_session_is_over(keyholder):
    keys = secrets.token_bytes(KEYS_BYTES)
    assert tell(keyholder, bytes(255 - byte for byte in keys).hex()) == "installed"
    words = {keys[at : at + WORD_BYTES] for at in range(0, KEYS_BYTES, WORD_BYTES)}
    locked = memory.secrets(keyholder.pid)
    assert words <= locked
    words |= set(sorted(locked)[:MADE_OF_KEYS])
    assert memory.holds(keyholder.pid, words) == words
    assert tell(keyholder, "remove") == "removed"
    assert memory.holds(keyholder.pid, words) == set()
