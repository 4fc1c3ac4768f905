"""A driver's side of a ring, honest unless told otherwise (describe, offer, set_…)."""

import os
import struct

from tests.fakes.ram import Ram

NEXT, WRITE, INDIRECT = 1, 2, 4
AVAIL, USED = 1 << 7, 1 << 15  # of packed descriptors
DESC = struct.Struct("<QIHH")
U16 = struct.Struct("<H")

Buffer = tuple[int, int, bool]  # guest address, bytes, writable
Chain = tuple[int, int, list[Buffer]]  # head or id, bytes written, buffers


class Events:
    """Whom a ring wakes."""

    def __init__(self) -> None:
        self.kick = os.eventfd(0, os.EFD_NONBLOCK)
        self.call = os.eventfd(0, os.EFD_NONBLOCK)
        self.error = os.eventfd(0, os.EFD_NONBLOCK)

    def close(self) -> None:
        for fd in (self.kick, self.call, self.error):
            os.close(fd)

    def calls(self) -> int:
        """Calls since the last look."""
        try:
            return os.eventfd_read(self.call)
        except BlockingIOError:
            return 0


class Ring(Events):
    """Driver's side of a split ring."""

    first_base = 0  # what SET_VRING_BASE says of a new one

    def __init__(self, ram: Ram, num: int, *, in_order: bool = False) -> None:
        super().__init__()
        self.ram = ram
        self.num = num
        self.in_order = in_order
        self.desc = ram.alloc(16 * num)
        self.avail = ram.alloc(6 + 2 * num, 2)
        self.used = ram.alloc(6 + 8 * num, 4)
        self.free = list(range(num))
        self.chains: dict[int, tuple[list[int], list[Buffer]]] = {}
        self.avail_idx = 0
        self.used_seen = 0

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

    def add(self, buffers: list[Buffer], *, indirect: bool = False) -> int:
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

    def reap(self) -> list[Chain]:
        """Chains that came back: (head, bytes written, buffers)."""
        result = []
        while self.used_seen != self.used_idx:
            at = self.used + 4 + 8 * (self.used_seen % self.num)
            head, size = struct.unpack("<II", self.ram.read(at, 8))
            while self.in_order and (first := next(iter(self.chains))) != head:
                result.append(self._reap(first, 0))  # the entry stands for those before it, too
            result.append(self._reap(head, size))
        return result

    def _reap(self, head: int, size: int) -> Chain:
        slots, buffers = self.chains.pop(head)
        self.free += slots
        self.used_seen = (self.used_seen + 1) & 0xFFFF
        return head, size, buffers


class PackedRing(Events):
    """Driver's side of a packed ring.

    Slots are counted from 0 for ever; where a count lies, and its wrap counter, is slot().
    """

    first_base = 1 << 15 | 1 << 31

    def __init__(self, ram: Ram, num: int, *, in_order: bool = False) -> None:
        super().__init__()
        self.ram = ram
        self.num = num
        self.in_order = in_order
        self.desc = ram.alloc(16 * num)
        self.avail = ram.alloc(4, 4)  # the driver's event area
        self.used = ram.alloc(4, 4)  # the device's
        self.free = list(range(num))  # ids
        self.chains: dict[int, tuple[int, list[Buffer]]] = {}
        self.offered = 0
        self.used_seen = 0

    # ---- raw

    def slot(self, count: int) -> tuple[int, int]:
        """Number of the slot, and the wrap counter of the round."""
        return count % self.num, 1 - count // self.num % 2

    def position(self, count: int) -> int:
        slot, wrap = self.slot(count)
        return slot | wrap << 15

    def bits(self, count: int) -> int:
        """AVAIL and USED of a descriptor that is offered."""
        return AVAIL if self.slot(count)[1] else USED

    def describe(self, count: int, gpa: int, size: int, flags: int, buffer_id: int) -> None:
        """Flags last, and as they are."""
        at = self.desc + 16 * self.slot(count)[0]
        self.ram.write(at, struct.pack("<QIH", gpa, size, buffer_id))
        self.ram.write(at + 14, U16.pack(flags))

    def flags(self, count: int) -> int:
        at = self.desc + 16 * self.slot(count)[0] + 14
        return int(U16.unpack(self.ram.read(at, 2))[0])

    def set_call_flags(self, flags: int, position: int = 0) -> None:
        """0 enable, 1 disable, 2 at a position."""
        self.ram.write(self.avail, struct.pack("<HH", position, flags))

    @property
    def kick_event(self) -> tuple[int, int]:
        """What the device wants to be told: position, flags."""
        position, flags = struct.unpack("<HH", self.ram.read(self.used, 4))
        return position, flags

    # ---- as a driver

    def add(self, buffers: list[Buffer], *, indirect: bool = False) -> int:
        """Offer a chain of (guest address, bytes, writable); returns its id."""
        buffer_id = self.free.pop(0)
        if indirect:
            table = self.ram.alloc(16 * len(buffers))
            for number, (gpa, size, writable) in enumerate(buffers):
                entry = DESC.pack(gpa, size, 0, WRITE if writable else 0)
                self.ram.write(table + 16 * number, entry)
            parts = [(table, 16 * len(buffers), INDIRECT)]
        else:
            parts = [(gpa, size, WRITE if writable else 0) for gpa, size, writable in buffers]
        room = self.num - sum(slots for slots, _ in self.chains.values())
        assert len(parts) <= room, "the fake ring is full"
        for number in reversed(range(len(parts))):
            gpa, size, flags = parts[number]
            count = self.offered + number
            flags |= self.bits(count) | (NEXT if number < len(parts) - 1 else 0)
            self.describe(count, gpa, size, flags, buffer_id)
        self.offered += len(parts)
        self.chains[buffer_id] = (len(parts), buffers)
        return buffer_id

    def reap(self) -> list[Chain]:
        """Chains that came back: (id, bytes written, buffers)."""
        result = []
        while self.chains:
            slot, wrap = self.slot(self.used_seen)
            at = self.desc + 16 * slot
            size, buffer_id, flags = struct.unpack("<IHH", self.ram.read(at + 8, 8))
            if flags & (AVAIL | USED) != (AVAIL | USED) * wrap:
                break
            while self.in_order and (first := next(iter(self.chains))) != buffer_id:
                result.append(self._reap(first, 0))
            result.append(self._reap(buffer_id, size if flags & WRITE else 0))
        return result

    def _reap(self, buffer_id: int, size: int) -> Chain:
        slots, buffers = self.chains.pop(buffer_id)
        self.free.append(buffer_id)
        self.used_seen += slots
        return buffer_id, size, buffers
