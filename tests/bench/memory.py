"""Memory that a front-end shares with a switch."""

import mmap
import os

from tests.bench.library import ffi

HUGE_BYTES = 2 << 20


class SharedMemory:
    """One region of guest memory; C writes to it through address()."""

    GPA = 0x1_0000_0000

    def __init__(self, size_bytes: int, *, huge: bool = True) -> None:
        """size_bytes: rounded up to whole hugepages.  huge: on such, all of them at once."""
        self.size = -(-size_bytes // HUGE_BYTES) * HUGE_BYTES
        self.fd = os.memfd_create("bench", os.MFD_CLOEXEC | (os.MFD_HUGETLB if huge else 0))
        os.ftruncate(self.fd, self.size)
        flags = mmap.MAP_SHARED | (mmap.MAP_POPULATE if huge else 0)
        self._map = mmap.mmap(self.fd, self.size, flags=flags)
        self._view = ffi.from_buffer("uint8_t[]", self._map, require_writable=True)
        self._base = int(ffi.cast("uintptr_t", self._view))
        self._free = self.GPA

    def alloc(self, size: int, align: int = 64) -> int:
        """A guest address that was not given out yet; never freed."""
        at = -(-self._free // align) * align
        self._free = at + size
        assert self._free <= self.GPA + self.size, "the front-end is out of memory"
        return at

    def address(self, gpa: int) -> int:
        """Where this process has it; the front-end's user address, too."""
        return self._base + gpa - self.GPA

    def close(self) -> None:
        ffi.release(self._view)
        self._map.close()
        os.close(self.fd)
