"""Invariant tested: see vhost_ring.c.  Coverage-guided, under ASan and UBSan, for a short while;
longer with FUZZ_SECONDS."""

import itertools
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.run import fuzz

RX, TX, CONTROL = 0, 1, 2
NEXT, WRITE, INDIRECT = 1, 2, 4
MOVE = b"\3"
PACKED, IN_ORDER, LOG, SMALL = 16, 32, 64, 128
THREAD = bytes([LOG | 31, 128])  # and every feature
PLACE = 0x6000  # see address_of()


def describe(
    ring: int, index: int, place: int, size: int, *, flags: int = 0, then: int = 0
) -> bytes:
    return struct.pack("<BBBHHBB", 0, ring, index, place, size, flags, then)


def offer(ring: int, head: int = 0, descriptors: int = 1) -> bytes:
    """Of a split ring the chain at head, of a packed one the next descriptors."""
    return bytes([1, ring, head, descriptors])


def write(offset: int, data: bytes) -> bytes:
    return struct.pack("<BBBH", 2, len(data), 0, offset) + data


def change(load: int, bits: int = 0, at: int = 0) -> bytes:
    """What this load of guest memory from now on reads; bits 0: whose turn a descriptor is."""
    return bytes([8, bits, at, load])


def again(ring: int, how: int, base: int, data: bytes = b"") -> bytes:
    return struct.pack("<BBBHB", 6, ring, how, base, len(data)) + data


def shapes() -> Iterator[bytes]:
    """What a guest sends, and the command it gives."""
    plain = describe(TX, 0, PLACE, 100) + offer(TX)
    yield plain
    yield (
        describe(TX, 0, PLACE, 12, flags=NEXT, then=1)
        + describe(TX, 1, 0x0010, 600)
        + offer(TX, 0, 2)
    )
    table = struct.pack("<QIHH", 0x10000 + 8192, 90, 0, 0)
    yield write(4096, table) + describe(TX, 0, 0x4000, 16, flags=INDIRECT) + offer(TX)
    mac = bytes.fromhex("02000000000b02000000000a0800")
    ip = bytes.fromhex("4500 0056 0001 4000 4006 0000 0a050001 0a050002".replace(" ", ""))
    offload = bytes.fromhex("01010000100022001000 0000".replace(" ", ""))
    tcp = bytes(12) + b"\x50\x10" + bytes(6)
    whole = describe(TX, 0, PLACE, 112) + offer(TX)
    yield write(8192 + 6 * 3072, offload + mac + ip + tcp + bytes(46)) + whole
    datagrams = bytes.fromhex("01050000100022000600 0000".replace(" ", ""))
    udp = ip[:9] + b"\x11" + ip[10:] + bytes.fromhex("0001000200420000")
    yield write(8192 + 6 * 3072, datagrams + mac + udp + bytes(58)) + whole
    yield (
        describe(CONTROL, 0, PLACE, 4, flags=NEXT, then=1)
        + describe(CONTROL, 1, PLACE + 0x800, 1, flags=WRITE)
        + offer(CONTROL, 0, 2)
    )
    many = b"".join(describe(TX, i, PLACE, 100, then=i) for i in range(16))
    yield many + b"".join(offer(TX, i) for i in range(16))


def seeds() -> Iterator[bytes]:
    """A frame from ring to ring, in rings of every kind and size, started again in between, or
    changed while they are read; a few with the second thread."""
    room = describe(RX, 0, PLACE + 0x1000, 2000, flags=WRITE) + offer(RX)
    kinds = itertools.product((0, PACKED), (0, IN_ORDER), (0, LOG), (0, SMALL), (0, 15))
    for layout, kind in enumerate(kinds):
        # A part of a ring at the end of memory, another one in each; sizes go round likewise.
        config = bytes([sum(kind), layout % 10 | layout % 8 << 4])
        for number, shape in enumerate(shapes()):
            for load in range(number, 40, 8):
                yield config + room + shape + change(load, 1 << load % 8, load) + MOVE
            yield config + room + shape + MOVE + room + MOVE
            yield config + room + shape + MOVE + again(TX, 1, 0) + shape + again(RX, 1, 0) + MOVE
            # What was used without us lies ahead: after the next one, or right here.
            yield config + room + shape + shape + again(TX, 1, 1) + again(TX, 1, 2) + MOVE

    for kind in (PACKED, PACKED | IN_ORDER):
        for load in range(8):
            frame = describe(TX, 0, PLACE, 100) + offer(TX)
            yield bytes([kind | SMALL | 15, 0]) + room + frame + change(load) * 4 + MOVE
    for shape in shapes():
        yield THREAD + room + shape + MOVE + room + MOVE


@pytest.mark.skipif(shutil.which("clang") is None, reason="libFuzzer comes with clang")
def test_hostile_rings(tmp_path: Path) -> None:
    # The SIGBUS handler under test is ours, not libFuzzer's.
    options = ("-max_len=1024", "-handle_bus=0")
    fuzz(
        tmp_path,
        "vhost_ring.c",
        seeds(),
        *options,
        packages=["vswitch", "vhost"],
        flags=["-fsanitize-coverage=trace-loads"],
    )
