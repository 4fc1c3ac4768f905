"""A host is a member by its tap: frames of 64 KiB that its kernel makes pass whole, both ways."""

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fakes.netns import Host
from tests.netns.test_switch_netns import hosts

__all__ = ["hosts"]

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("tcpdump") is None,
    reason="needs root for network namespaces, and tcpdump",
)

LARGE_BYTES = 60000
SINK = """
import socket, sys
s = socket.create_server((sys.argv[1], 5001), family=int(sys.argv[2]))
print("ready", flush=True)
c, _ = s.accept()
while c.recv(1 << 20):
    pass
"""
# Until it is told that a large frame was seen.
SOURCE = """
import select, socket, sys
s = socket.create_connection((sys.argv[1], 5001))
data = bytes(1 << 20)
while not select.select([sys.stdin], [], [], 0.02)[0]:
    s.sendall(data)
"""


@pytest.mark.parametrize(("source", "sink"), [(0, 1), (1, 0)], ids=["there", "back"])
@pytest.mark.parametrize("network", ["10.5.0.{}", "fd00:5::{}"], ids=["v4", "v6"])
def test_large_frames_of_tcp(
    hosts: list[Host], source: int, sink: int, network: str, tmp_path: Path
) -> None:
    address = network.format(sink + 1)
    family = "2" if "." in address else "10"
    python = sys.executable
    capture = tmp_path / "large.pcap"
    with ExitStack() as stack:
        receiver = stack.enter_context(
            subprocess.Popen(
                hosts[sink].command(python, "-c", SINK, address, family),
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(receiver.kill)
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "ready\n"
        words = ["timeout", "30", "tcpdump", "-n", "-c", "1", "-s", "96", "-i", "vsw0"]
        seen = stack.enter_context(
            subprocess.Popen(
                hosts[sink].command(*words, "-w", str(capture), f"greater {LARGE_BYTES}"),
                stderr=subprocess.DEVNULL,
            )
        )
        stack.callback(seen.kill)
        sender = stack.enter_context(
            subprocess.Popen(
                hosts[source].command(python, "-c", SOURCE, address),
                stdin=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(sender.kill)
        assert seen.wait(40) == 0, f"no frame of {LARGE_BYTES} bytes arrived"
        assert sender.stdin is not None
        sender.stdin.write("enough\n")
        sender.stdin.close()
        assert (sender.wait(20), receiver.wait(20)) == (0, 0)
    sent, got = (hosts[i].daemon.ask("stats")["ports"][0] for i in (source, sink))
    assert sent["rx_gso_packets"] > 0
    assert got["tx_gso_packets"] > 0
