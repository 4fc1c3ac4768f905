"""dpdk-testpmd with virtio-user ports: an independent front-end, driven over its prompt."""

import os
import re
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.fakes.daemons import until
from tests.fakes.hugepages import reserve_hugepages

HUGEPAGES_WANTED = 256  # testpmd shares its memory as hugepages
PROMPT = "testpmd> "


class Testpmd:
    """Two virtio-user ports that forward what they get to each other's MAC address, for ever.

    listens: testpmd is the socket's server.  options: of each device ("queues=2", "mrg_rxbuf=0").
    """

    __test__ = False  # not a test case, whatever its name says
    MACS = ("02:00:00:00:70:00", "02:00:00:00:70:01")

    def __init__(self, sockets: Sequence[Path], *, listens: bool, options: str = "") -> None:
        reserve_hugepages(HUGEPAGES_WANTED)
        devices = [
            f"--vdev=net_virtio_user{i},path={path},mac={self.MACS[i]}"
            f",server={int(listens)},{options}"
            for i, path in enumerate(sockets)
        ]
        # A frame from one port goes to the other's address: through the switch, round and round.
        peers = [f"--eth-peer={i},{self.MACS[1 - i]}" for i in range(2)]
        command = [
            *(
                "stdbuf",
                "-oL",
                "dpdk-testpmd",
                "-l",
                "0,1",
                "--no-pci",
                "--in-memory",
                "--single-file-segments",
            ),
            *("-m", "256", *(device.rstrip(",") for device in devices)),
            *("--", "-i", "--no-mlockall", "--forward-mode=mac", "--total-num-mbufs=8192", *peers),
        ]
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=0,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        while chunk := self._process.stdout.read(1):
            self._lines.append(chunk)

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def ready(self) -> None:
        """Wait for the prompt."""
        until(lambda: PROMPT in self.output or self._process.poll() is not None, "testpmd's prompt")
        assert self._process.poll() is None, self.output

    def tell(self, command: str) -> str:
        """Run a command; returns what it prints."""
        assert self._process.stdin is not None
        start = len(self.output)
        self._process.stdin.write(command + "\n")
        until(lambda: PROMPT in self.output[start:], f"testpmd to answer {command!r}")
        return self.output[start:]

    def received(self) -> list[int]:
        """Packets that each port has received."""
        return [int(n) for n in re.findall(r"RX-packets: (\d+)", self.tell("show port stats all"))]

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
