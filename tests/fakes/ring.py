"""A driver's side of a ring, honest unless told otherwise (describe, offer, set_…)."""

import os
import struct

from tests.fakes.ram import Ram

NEXT, WRITE, INDIRECT = 1, 2, 4
DESC = struct.Struct("<QIHH")
U16 = struct.Struct("<H")


class Ring:
    """Driver's side of a split ring."""

    def __init__(self, ram: Ram, num: int) -> None:
        self.ram = ram
        self.num = num
        self.desc = ram.alloc(16 * num)
        self.avail = ram.alloc(6 + 2 * num, 2)
        self.used = ram.alloc(6 + 8 * num, 4)
        self.free = list(range(num))
        self.chains: dict[int, tuple[list[int], list[tuple[int, int, bool]]]] = {}
        self.avail_idx = 0
        self.used_seen = 0
        self.kick = os.eventfd(0, os.EFD_NONBLOCK)
        self.call = os.eventfd(0, os.EFD_NONBLOCK)
        self.error = os.eventfd(0, os.EFD_NONBLOCK)

    def close(self) -> None:
        for fd in (self.kick, self.call, self.error):
            os.close(fd)

    # ---- raw

    def describe(self, index: int, gpa: int, size: int, flags: int = 0, following: int = 0) -> None:
        self.ram.write(self.desc + 16 * index, DESC.pack(gpa, size, flags, following))

    def offer(self, head: int) -> None:
        self.ram.write(self.avail + 4 + 2 * (self.avail_idx % self.num), U16.pack(head))
        self.set_avail_idx(self.avail_idx + 1)

    def set_avail_idx(self, value: int) -> None:
        self.avail_idx = value & 0xFFFF
        self.ram.write(self.avail + 2, U16.pack(self.avail_idx))

    def set_avail_flags(self, value: int) -> None:
        self.ram.write(self.avail, U16.pack(value))

    def set_used_event(self, value: int) -> None:
        self.ram.write(self.avail + 4 + 2 * self.num, U16.pack(value & 0xFFFF))

    @property
    def used_flags(self) -> int:
        return int(U16.unpack(self.ram.read(self.used, 2))[0])

    @property
    def used_idx(self) -> int:
        return int(U16.unpack(self.ram.read(self.used + 2, 2))[0])

    @property
    def avail_event(self) -> int:
        return int(U16.unpack(self.ram.read(self.used + 4 + 8 * self.num, 2))[0])

    # ---- as a driver

    def add(self, buffers: list[tuple[int, int, bool]], *, indirect: bool = False) -> int:
        """Offer a chain of (guest address, bytes, writable); returns its head."""
        entries = []
        count = 1 if indirect else len(buffers)
        slots = [self.free.pop(0) for _ in range(count)]
        for number, (gpa, size, writable) in enumerate(buffers):
            last = number == len(buffers) - 1
            flags = (WRITE if writable else 0) | (0 if last else NEXT)
            following = 0 if last else (number + 1 if indirect else slots[number + 1])
            entries.append(DESC.pack(gpa, size, flags, following))
        if indirect:
            table = self.ram.alloc(16 * len(entries))
            self.ram.write(table, b"".join(entries))
            self.describe(slots[0], table, 16 * len(entries), INDIRECT)
        else:
            for slot, entry in zip(slots, entries, strict=True):
                self.ram.write(self.desc + 16 * slot, entry)
        self.chains[slots[0]] = (slots, buffers)
        self.offer(slots[0])
        return slots[0]

    def reap(self) -> list[tuple[int, int, list[tuple[int, int, bool]]]]:
        """Chains that came back: (head, bytes written, buffers)."""
        result = []
        while self.used_seen != self.used_idx:
            at = self.used + 4 + 8 * (self.used_seen % self.num)
            head, size = struct.unpack("<II", self.ram.read(at, 8))
            slots, buffers = self.chains.pop(head)
            self.free += slots
            result.append((head, size, buffers))
            self.used_seen = (self.used_seen + 1) & 0xFFFF
        return result

    def calls(self) -> int:
        """Calls since the last look."""
        try:
            return os.eventfd_read(self.call)
        except BlockingIOError:
            return 0
