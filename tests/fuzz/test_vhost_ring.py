"""Invariant tested: see vhost_ring.c.  Coverage-guided, under ASan and UBSan, for a short while;
longer with FUZZ_SECONDS."""

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.run import fuzz

RX, TX, CONTROL = 0, 1, 2
NEXT, WRITE, INDIRECT = 1, 2, 4
MOVE = b"\3"
ALL_FEATURES, MUTATE = 15, 16
PLACE = 0x6000  # see address_of()


def describe(
    ring: int, index: int, place: int, size: int, *, flags: int = 0, then: int = 0
) -> bytes:
    return struct.pack("<BBBHHBB", 0, ring, index, place, size, flags, then)


def offer(ring: int, head: int) -> bytes:
    return bytes([1, ring, head])


def write(offset: int, data: bytes) -> bytes:
    return struct.pack("<BBBH", 2, len(data), 0, offset) + data


def seeds() -> Iterator[bytes]:
    """A frame from ring to ring, in several shapes, with and without the second thread."""
    plain = describe(TX, 0, PLACE, 100) + offer(TX, 0)
    room = describe(RX, 0, PLACE + 0x1000, 2000, flags=WRITE) + offer(RX, 0)
    chain = (
        describe(TX, 0, PLACE, 12, flags=NEXT, then=1) + describe(TX, 1, 0x0010, 600) + offer(TX, 0)
    )
    table = struct.pack("<QIHH", 0x10000 + 8192, 90, 0, 0)
    indirect = write(4096, table) + describe(TX, 0, 0x4000, 16, flags=INDIRECT) + offer(TX, 0)
    mac = bytes.fromhex("02000000000b02000000000a0800")
    ip = bytes.fromhex("4500 0056 0001 4000 4006 0000 0a050001 0a050002".replace(" ", ""))
    offload = bytes.fromhex("01010000100022001000 0000".replace(" ", ""))
    tcp = bytes(12) + b"\x50\x10" + bytes(6)
    whole = describe(TX, 0, PLACE, 112) + offer(TX, 0)
    large = write(8192 + 6 * 4096, offload + mac + ip + tcp + bytes(46)) + whole
    datagrams = bytes.fromhex("01050000100022000600 0000".replace(" ", ""))
    udp = ip[:9] + b"\x11" + ip[10:] + bytes.fromhex("0001000200420000")
    many = write(8192 + 6 * 4096, datagrams + mac + udp + bytes(58)) + whole
    command = (
        describe(CONTROL, 0, PLACE, 4, flags=NEXT, then=1)
        + describe(CONTROL, 1, PLACE + 0x800, 1, flags=WRITE)
        + offer(CONTROL, 0)
    )
    for features in (0, ALL_FEATURES, ALL_FEATURES | MUTATE):
        for shape in (plain, chain, indirect, large, many, command):
            yield bytes([features]) + room + shape + MOVE + room + MOVE


@pytest.mark.skipif(shutil.which("clang") is None, reason="libFuzzer comes with clang")
def test_hostile_rings(tmp_path: Path) -> None:
    # The SIGBUS handler under test is ours, not libFuzzer's.
    options = ("-max_len=1024", "-handle_bus=0")
    fuzz(tmp_path, "vhost_ring.c", seeds(), *options, packages=["vswitch", "vhost"])
