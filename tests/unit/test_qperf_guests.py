"""What guests are made of: archives, module order, command lines, the agent's protocol, TOML."""

import base64
import socket
import threading
import tomllib
from pathlib import Path

import pytest

from qperf_suite.agent import Agent
from qperf_suite.errors import GuestError
from qperf_suite.guests import Nic, Tap, UmlGuest, VhostUser
from qperf_suite.image import Entry, module_closure, write_newc
from qperf_suite.kernel_systems import best_driver
from qperf_suite.vhost_user import HostPlan, host_config
from qperf_suite.workloads import Case

MODULES_DEP = """\
kernel/net/core/failover.ko:
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko
kernel/lib/crc-ccitt.ko:
"""


def test_modules_come_after_what_they_need() -> None:
    order = module_closure(MODULES_DEP, ["virtio_net", "crc_ccitt", "built_in"])
    assert [path.rsplit("/", 1)[-1] for path in order] == [
        "failover.ko",
        "net_failover.ko",
        "virtio_net.ko",
        "crc-ccitt.ko",
    ]


def test_archive_is_aligned_and_ends_with_its_trailer() -> None:
    archive = write_newc([Entry("bin", 0o40755), Entry("bin/a", 0o100755, b"12345")])
    assert archive.startswith(b"070701")
    assert len(archive) % 4 == 0
    assert archive.count(b"070701") == 3
    header = archive[archive.index(b"bin/a\0") - 110 :]
    assert int(header[54:62], 16) == 5
    assert b"TRAILER!!!\0" in archive


def test_interfaces_are_numbered_as_the_drivers_do() -> None:
    nics: list[Nic] = [VhostUser("/a"), Tap("t0"), Tap("t1", driver="tuntap")]
    assert UmlGuest("g", nics=nics).interfaces == ["eth0", "vec1", "eth1"]


def far_end(line: socket.socket, answers: list[bytes]) -> threading.Thread:
    """A guest that greets, then answers every request line with the next of the answers."""

    def serve() -> None:
        line.sendall(b"READY\n")
        for answer in answers:
            _, _, length, encoded = line.recv(65536).split()
            assert int(length) == len(encoded)
            line.sendall(answer.replace(b"ECHO", base64.b64decode(encoded)))
        line.close()

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_agent_frames_output_and_notices_a_dead_guest() -> None:
    ours, theirs = socket.socketpair()
    thread = far_end(theirs, [b"3 7 2\nls /etcno", b"garbage\n"])
    agent = Agent("g", ours)
    agent.wait_ready(1.0)
    result = agent.run("ls /etc")
    assert (result.status, result.stdout, result.stderr) == (3, "ls /etc", "no")
    assert (result.ok, result.words) == (False, "no")
    with pytest.raises(GuestError, match="garbled answer"):
        agent.run("true")
    thread.join()
    with pytest.raises(GuestError, match="gone"):
        agent.run("true")
    agent.close()


def test_agent_repeats_a_request_that_lost_bytes() -> None:
    ours, theirs = socket.socketpair()
    thread = far_end(theirs, [b"again\n", b"again\n", b"0 2 0\nok"])
    agent = Agent("g", ours)
    agent.wait_ready(1.0)
    assert agent.run("true").stdout == "ok"
    thread.join()
    agent.close()


def test_agent_refuses_commands_that_the_line_would_cut() -> None:
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(GuestError, match="command over"):
        Agent("g", ours).run("x" * 5000)
    ours.close()


def test_configuration_names_ports_and_peers() -> None:
    a = HostPlan("a", 0, "192.0.2.1", {"a1": "10.5.0.1"}, Path("/tmp/x/a.key"), "KEY-A")
    b = HostPlan("b", 1, "192.0.2.2", {"b1": "10.5.0.3"}, Path("/tmp/x/b.key"), "KEY-B")
    config = tomllib.loads(host_config(a, [b], Path("/tmp/x")))
    port = config["bridges"]["br0"]["ports"]["a1"]
    assert port == {
        "type": "vhost-user",
        "path": "/tmp/x/a1.sock",
        "mode": "server",
        "addresses": ["10.5.0.1/32"],
    }
    assert config["mesh"]["listen"] == "192.0.2.1:7400"
    assert config["mesh"]["peers"] == [
        {"public_key": "KEY-B", "endpoints": ["192.0.2.2:7400"], "addresses": ["10.5.0.3/32"]}
    ]
    assert "mesh" not in tomllib.loads(host_config(a, [], Path("/tmp/x")))


@pytest.mark.parametrize(
    ("case", "driver"),
    [
        (Case("same-host", "tcp_lat", 1024), "tuntap"),
        (Case("same-host", "tcp_lat", 65536), "vector"),
        (Case("same-host", "mtr"), "tuntap"),
        (Case("same-host", "tcp_bw", 1), "vector"),
        (Case("same-host", "iperf3"), "vector"),
    ],
)
def test_baselines_use_the_driver_that_suits_the_case(case: Case, driver: str) -> None:
    assert best_driver(case) == driver
