"""The memory of a fake guest."""

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Region:
    """A piece of guest memory with a file of its own."""

    gpa: int
    user: int
    fd: int
    map: mmap.mmap
    offset: int

    @property
    def size(self) -> int:
        return len(self.map) - self.offset


class Ram:
    """Guest memory; layout: (guest address, bytes) of each region.  offset: into each file."""

    def __init__(self, layout: Sequence[tuple[int, int]], offset: int = 0) -> None:
        self.regions = []
        for number, (gpa, size) in enumerate(layout):
            fd = os.memfd_create(f"ram{number}")
            os.ftruncate(fd, size + offset)
            # Far from any guest address, and in another order, so that nobody can mix them up.
            user = 0x7000_0000_0000 - number * 0x10_0000_0000
            self.regions.append(Region(gpa, user, fd, mmap.mmap(fd, size + offset), offset))
        self._free = {region.gpa: region.gpa for region in self.regions}

    def close(self) -> None:
        for region in self.regions:
            region.map.close()
            os.close(region.fd)

    def _region(self, gpa: int) -> Region:
        for region in self.regions:
            if region.gpa <= gpa < region.gpa + region.size:
                return region
        raise AssertionError(f"{gpa:#x} is not in the fake guest's memory")

    def user(self, gpa: int) -> int:
        region = self._region(gpa)
        return region.user + gpa - region.gpa

    def write(self, gpa: int, data: bytes) -> None:
        while data:
            region = self._region(gpa)
            at = gpa - region.gpa + region.offset
            piece = data[: len(region.map) - at]
            region.map[at : at + len(piece)] = piece
            gpa, data = gpa + len(piece), data[len(piece) :]

    def read(self, gpa: int, size: int) -> bytes:
        data = b""
        while len(data) < size:
            region = self._region(gpa + len(data))
            at = gpa + len(data) - region.gpa + region.offset
            data += region.map[at : min(at + size - len(data), len(region.map))]
        return data

    def alloc(self, size: int, align: int = 16, region: int = 0) -> int:
        """A guest address that was not given out yet; never freed."""
        gpa = self.regions[region].gpa
        at = -(-self._free[gpa] // align) * align
        self._free[gpa] = at + size
        assert at + size <= gpa + self.regions[region].size, "the fake guest is out of memory"
        return at
