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

from mesh.wire import TYPE_TRACE
from tests.fuzz.run import fuzz

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "mesh_records.json").read_text())
HOSTILE, LYING, RELAYED = b"\0", b"\1", b"\2"
PINNED = b"\5"
ELSEWHERE, THROUGH, TWICE, MANY = 0x1000, 0x2000, 0x4000, 0x8000
MAC1, RELAYED_TWICE = 0x80, 0x40
DESTINATIONS, OURS = 7, 5
RELAY_HEADER = bytes([5, 8]) + bytes(30)
NEEDS_CSUM, LAST = 1, 8
TCP4, TCP6, UDP4, CONTROL = 1, 2, 3, 7


def run(
    gso_type: int, packet: Packet, l4: int, csum_offset: int, pieces: int, *, lies: int = 0
) -> bytes:
    """A run of pieces of 100 bytes of payload, as lying() reads it."""
    seed = LYING
    for i in range(pieces):
        data = bytes(packet / Raw(bytes([i]) * 100))
        flags = NEEDS_CSUM | gso_type << 4 | (LAST if i == pieces - 1 else 0)
        prefix = struct.pack("<BBBBHH", flags, l4, csum_offset, i, 7, 100)
        seed += struct.pack("<H", len(data) | lies) + prefix + data
    return seed


def probe(kind: int, lies: int, length: int = 16) -> bytes:
    """A control record, as lying() reads it."""
    data = struct.pack("<BxxxII", kind, 7, 1400).ljust(length, b"\0")[:length]
    return struct.pack("<HBxxxHH", length | lies, LAST | CONTROL << 4, 0, 0) + data


def seeds() -> Iterator[bytes]:
    for vector in GOLDEN["vectors"]:
        yield HOSTILE + b"\xff" + bytes.fromhex(vector["record"])
        yield HOSTILE + b"\xff" + RELAY_HEADER + bytes.fromhex(vector["record"])
        for destination in range(DESTINATIONS):
            for hops in (0, 8):
                yield RELAYED + bytes([destination, hops]) + bytes.fromhex(vector["record"])
    for counter in (0, 1 << 40):  # to a session that there is, seen and not
        header = struct.pack("<BxHIQ8s", 4, 0, 0x20002, counter, b"\2" * 8)
        yield HOSTILE + b"\xff" + header + bytes(60)
        yield RELAYED + bytes([OURS, 8]) + header + bytes(60)
    for kind, length in ((1, 152), (2, 96), (3, 64)):
        message = bytes([kind]) + bytes(length - 1)
        yield HOSTILE + bytes([length - 1]) + message
        for destination in range(DESTINATIONS):
            yield RELAYED + bytes([destination | MAC1, 8]) + message
            yield RELAYED + bytes([destination | RELAYED_TWICE, 8]) + message
    for destination in range(DESTINATIONS):
        for hops in (0, 8):
            for end in (0, 1, 9):
                yield RELAYED + bytes([destination, hops, TYPE_TRACE, end]) + bytes(54)
    yield run(TCP4, IP() / TCP(), 20, 16, 5)
    yield run(TCP4, IP() / TCP(options=[("NOP", None)] * 12), 20, 16, 8)
    yield run(TCP6, IPv6() / TCP(), 40, 16, 5)
    yield run(UDP4, IP() / UDP(), 20, 6, 5)
    for lies in (ELSEWHERE, THROUGH, TWICE, MANY, THROUGH | TWICE | MANY):
        yield run(TCP4, IP() / TCP(), 20, 16, 2, lies=lies)
        yield PINNED + run(TCP4, IP() / TCP(), 20, 16, 2, lies=lies)[1:]
        for kind in range(4):
            yield LYING + probe(kind, lies) + probe(kind, 0, 15) + probe(kind, lies, 1400)


@pytest.mark.skipif(shutil.which("clang") is None, reason="libFuzzer comes with clang")
def test_hostile_datagrams_and_lying_peers(tmp_path):
    options = ("-max_len=4096", "-print_final_stats=1")
    fuzz(tmp_path, "mesh_open.c", seeds(), *options, packages=["vswitch", "mesh"])
