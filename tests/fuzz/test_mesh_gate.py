"""Invariant tested: see mesh_gate.c.  Coverage-guided, under ASan and UBSan, for a short while;
longer with FUZZ_SECONDS."""

import shutil
import struct
from collections.abc import Iterator

import pytest

from tests.fuzz.run import fuzz

MAC1, MAC2, EXPECTED, NEIGHBOUR, OTHER_LENGTH, IPV4, MANY = 1, 2, 4, 8, 16, 32, 64


def seeds() -> Iterator[bytes]:
    for flags in (0, MAC1, MAC1 | MAC2, MAC1 | NEIGHBOUR, MAC1 | EXPECTED, OTHER_LENGTH | MAC1):
        for kind in range(3):
            yield struct.pack("<BBBBHH", kind, flags, 1, 2, 100, 151) * 3
    for flags in (MAC1, MAC1 | MAC2, MAC1 | NEIGHBOUR, MAC1 | EXPECTED):
        yield struct.pack("<BBBBHH", 0, flags | IPV4 | MANY, 1, 2, 100, 151) * 5
        yield struct.pack("<BBBBHH", 1, flags | MANY, 1, 2, 100, 95) * 5
    yield b"".join(
        struct.pack("<BBBBHH", 0, MAC1 | MAC2 * (i % 3 == 0), i, 2, 10, 0) + bytes(16)
        for i in range(200)
    )


@pytest.mark.skipif(shutil.which("clang") is None, reason="libFuzzer comes with clang")
def test_handshake_messages(tmp_path):
    options = ("-max_len=2048", "-print_final_stats=1")
    fuzz(tmp_path, "mesh_gate.c", seeds(), *options, packages=["vswitch", "mesh"])
