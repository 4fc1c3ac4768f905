"""dpdk-testpmd with virtio-user ports: an independent front-end, driven over its prompt."""

import os
import re
import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.closing import Closing
from tests.fakes.daemons import until
from tests.fakes.hugepages import reserve_hugepages

HUGEPAGES_WANTED = 256  # testpmd shares its memory as hugepages
PROMPT = "testpmd> "


@dataclass(frozen=True)
class VirtioUser:
    """One port.  listens: testpmd is the socket's server.  The rest is what its driver may use;
    it uses what the backend offers as well."""

    path: Path
    listens: bool
    packed: bool = False
    in_order: bool = True
    mergeable: bool = True
    vectorized: bool = False

    def device(self, number: int, queues: int) -> str:
        """The option that makes it."""
        if self.listens:
            self.path.unlink(missing_ok=True)  # left by one that was killed; it would not bind
        return (
            f"--vdev=net_virtio_user{number},path={self.path},mac={Testpmd.MACS[number]}"
            f",queues={queues},server={int(self.listens)},packed_vq={int(self.packed)}"
            f",in_order={int(self.in_order)},mrg_rxbuf={int(self.mergeable)}"
            f",vectorized={int(self.vectorized)}"
        )


class Pmd(Closing):
    """A dpdk-testpmd without PCI devices and on memory of its own, driven over its prompt."""

    def __init__(self, eal: Sequence[str], arguments: Sequence[str]) -> None:
        """eal: what stands before "--"; arguments: what comes after it."""
        command = [
            *("stdbuf", "-oL", "dpdk-testpmd", "--no-pci", "--in-memory"),
            *("--single-file-segments", "--force-max-simd-bitwidth=512", *eal),
            *("--", "-i", "--no-mlockall", *arguments),
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

    @property
    def pid(self) -> int:
        return self._process.pid

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

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


class Testpmd(Pmd):
    """Two ports that change a frame's addresses and send it out of each other, on CPU 1.

    queues: pairs of each port.  Forwarding starts with "start"; to_each_other() first makes what
    comes out of one port go to the other's address, through the switch, round and round.
    arguments: to testpmd itself.
    """

    __test__ = False  # not a test case, whatever its name says
    MACS = ("02:00:00:00:70:00", "02:00:00:00:70:01")

    def __init__(
        self,
        ports: Sequence[VirtioUser],
        *,
        queues: int = 1,
        arguments: Sequence[str] = ("--total-num-mbufs=8192",),
    ) -> None:
        reserve_hugepages(HUGEPAGES_WANTED)
        devices = [port.device(i, queues) for i, port in enumerate(ports)]
        super().__init__(
            ["-l", "0,1", "-m", "256", "--log-level=pmd.net.virtio.*:info", *devices],
            ["--forward-mode=mac", f"--rxq={queues}", f"--txq={queues}", *arguments],
        )

    def send_to(self, *macs: str) -> None:
        """The destination of all that comes out of each port."""
        for number, mac in enumerate(macs):
            self.tell(f"set eth-peer {number} {mac}")

    def to_each_other(self) -> None:
        self.send_to(*reversed(self.MACS))

    def received(self) -> list[int]:
        """Packets that each port has received."""
        return self._counters("RX-packets")

    def sent(self) -> list[int]:
        return self._counters("TX-packets")

    def _counters(self, name: str) -> list[int]:
        return [int(n) for n in re.findall(rf"{name}: (\d+)", self.tell("show port stats all"))]
