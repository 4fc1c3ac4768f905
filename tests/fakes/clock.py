"""The clocks of one process, moved by a test (clock.c)."""

import mmap
import struct
import subprocess
from pathlib import Path

from tests.fakes.closing import Closing

SOURCE = Path(__file__).with_name("clock.c")
OFFSETS = struct.Struct("qq")
NS_PER_S = 1_000_000_000


class Clock(Closing):
    def __init__(self, folder: Path) -> None:
        library, file = folder / "clock.so", folder / "clock"
        flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        subprocess.run(["gcc", *flags, "-o", library, SOURCE], check=True)
        file.write_bytes(bytes(OFFSETS.size))
        with file.open("r+b") as opened:
            self._offsets = mmap.mmap(opened.fileno(), OFFSETS.size)
        self._wall_ns = self._monotonic_ns = 0
        # The command before the one whose clocks they are.
        self.before = ["env", f"CLOCK_FILE={file}", f"LD_PRELOAD={library}"]

    def jump(self, *, wall_s: int = 0, monotonic_s: int = 0) -> None:
        """From where they are."""
        self._wall_ns += wall_s * NS_PER_S
        self._monotonic_ns += monotonic_s * NS_PER_S
        OFFSETS.pack_into(self._offsets, 0, self._wall_ns, self._monotonic_ns)

    def close(self) -> None:
        self._offsets.close()
