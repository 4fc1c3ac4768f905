"""Invariant tested: see mesh_open.c.  Coverage-guided, under ASan and UBSan, for a short while;
longer with FUZZ_SECONDS."""

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from tests.fuzz.run import fuzz

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "mesh_records.json").read_text())
HOSTILE, LYING, RELAYED = b"\0", b"\1", b"\2"
RELAY_HEADER = bytes([5, 8]) + bytes(30)
NEEDS_CSUM, LAST = 1, 8
TCP4, TCP6, UDP4 = 1, 2, 3


def run(gso_type: int, packet: Packet, l4: int, csum_offset: int, pieces: int) -> bytes:
    """A run of pieces of 100 bytes of payload, as lying() reads it."""
    seed = LYING
    for i in range(pieces):
        data = bytes(packet / Raw(bytes([i]) * 100))
        flags = NEEDS_CSUM | gso_type << 4 | (LAST if i == pieces - 1 else 0)
        prefix = struct.pack("<BBBBHH", flags, l4, csum_offset, i, 7, 100)
        seed += struct.pack("<H", len(data)) + prefix + data
    return seed


def seeds() -> Iterator[bytes]:
    for vector in GOLDEN["vectors"]:
        yield HOSTILE + b"\xff" + bytes.fromhex(vector["record"])
        yield HOSTILE + b"\xff" + RELAY_HEADER + bytes.fromhex(vector["record"])
        for destination in range(3):
            yield RELAYED + bytes([destination, 8]) + bytes.fromhex(vector["record"])
    for kind, length in ((1, 152), (2, 96), (3, 64)):
        yield HOSTILE + bytes([length - 1]) + bytes([kind]) + bytes(length - 1)
        yield RELAYED + bytes([0, 8]) + bytes([kind]) + bytes(length - 1)
        yield RELAYED + bytes([1, 8]) + bytes([kind]) + bytes(length - 1)
    yield run(TCP4, IP() / TCP(), 20, 16, 5)
    yield run(TCP4, IP() / TCP(options=[("NOP", None)] * 12), 20, 16, 8)
    yield run(TCP6, IPv6() / TCP(), 40, 16, 5)
    yield run(UDP4, IP() / UDP(), 20, 6, 5)


@pytest.mark.skipif(shutil.which("clang") is None, reason="libFuzzer comes with clang")
def test_hostile_datagrams_and_lying_peers(tmp_path):
    options = ("-max_len=4096", "-print_final_stats=1")
    fuzz(tmp_path, "mesh_open.c", seeds(), *options, packages=["vswitch", "mesh"])
