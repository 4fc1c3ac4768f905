"""Sockets and lives of ports: both roles, reconnecting, stale files, split and stalled streams."""

import os
import resource
import shutil
import socket
import stat
import tempfile
import time
from pathlib import Path

import pytest

from tests.fakes.frontend import MERGEABLE, FrontEnd, too_many_fds
from tests.fakes.vhostbox import VhostBox, frame
from vhost import messages as m
from vhost import sockets
from vhost.errors import VhostError
from vhost.messages import Request
from vhost.port import VhostConfig, VhostPort, check_config

nobody_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")


def listener(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen(1)
    return sock


def pump_until(box: VhostBox, state: str, port: int = 0) -> None:
    deadline = time.monotonic() + 5
    while box.ports[port].status()["state"] != state:
        assert time.monotonic() < deadline, box.ports[port].status()
        box.pump()


def test_a_port_without_descriptors_to_accept_with_waits_for_some() -> None:
    """It does not try again and again meanwhile, and takes the front-end when it can."""
    with VhostBox(1) as box, socket.socket(socket.AF_UNIX) as front:
        port = box.ports[0]
        port.start()
        front.connect(port.config.path)
        free = os.open("/dev/null", os.O_RDONLY)
        os.close(free)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            box.pump()
            assert "Too many open files" in str(port.status()["reason"])
            assert port._listener is not None
            assert not box.loop.remove_reader(port._listener.sock.fileno())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        pump_until(box, "connected")


# ---- client mode


def test_a_client_waits_connects_and_connects_again() -> None:
    with VhostBox(2, mode="client") as box:
        port, path = box.ports[0], box.ports[0].config.path
        port.start()
        assert port.status()["state"] == "connecting"
        assert "does not exist" in str(port.status()["reason"])
        for round_ in range(3):
            with listener(path) as sock:
                front = FrontEnd(box.pump)
                front.accept(sock)
                front.boot()
                assert port.status()["state"] == "connected"
                assert port.status()["connections"] == round_ + 1
                front.close()
                pump_until(box, "connecting")
            os.unlink(path)


def test_a_client_finds_a_socket_that_comes_late_within_a_moment() -> None:
    with VhostBox(1, mode="client") as box:
        box.ports[0].start()
        box.pump()
        with listener(box.ports[0].config.path) as sock:
            began = time.monotonic()
            front = FrontEnd(box.pump)
            front.accept(sock)
            assert time.monotonic() - began < 1
            front.close()


def test_frames_pass_in_client_mode() -> None:
    with VhostBox(2, mode="client") as box:
        fronts = []
        for port in box.ports:
            port.start()
            with listener(port.config.path) as sock:
                fronts.append(FrontEnd(box.pump))
                fronts[-1].accept(sock)
                fronts[-1].boot()
        box.fronts = fronts
        fronts[1].post(1)
        fronts[0].transmit(frame(64))
        box.settle()
        assert fronts[1].frames() == [frame(64)]


# ---- server mode


def test_one_front_end_at_a_time_the_next_one_waits() -> None:
    with VhostBox(1) as box:
        first = box.front(0)
        first.boot()
        second = box.front(0)
        for _ in range(5):
            box.pump()
        assert box.ports[0].status()["connections"] == 1
        box.fronts.remove(first)
        first.close()
        second.boot()
        assert box.ports[0].status()["connections"] == 2


def test_the_sockets_file_has_the_mode_and_goes_with_the_port() -> None:
    with VhostBox(1) as box:
        box.ports[0].start()
        path = Path(box.ports[0].config.path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert not path.exists()


def test_a_stale_socket_is_replaced_a_live_one_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    listener(path).close()
    first = sockets.listen(path, 0o600, None)
    with pytest.raises(VhostError, match="another process listens"):
        sockets.listen(path, 0o600, None)
    assert os.path.exists(path)
    os.unlink(path)
    with listener(path):
        first.close()
        assert os.path.exists(path), "somebody else's"


def test_what_is_no_socket_stays(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("precious")
    with pytest.raises(VhostError, match="is no socket"):
        sockets.listen(str(tmp_path / "x"), 0o600, None)
    assert (tmp_path / "x").read_text() == "precious"


def test_paths_that_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(VhostError, match=r"107 bytes.*shorter"):
        sockets.check_path(str(tmp_path / ("x" * 107)))
    with pytest.raises(VhostError, match=r"does not exist.*create"):
        sockets.listen(str(tmp_path / "no" / "x"), 0o600, None)
    with pytest.raises(VhostError, match="no group"):
        sockets.listen(str(tmp_path / "x"), 0o600, "no-such-group")
    check_config(VhostConfig(str(tmp_path / "x"), "server", 1400))
    with pytest.raises(VhostError, match='"client" or "server"'):
        check_config(VhostConfig(str(tmp_path / "x"), "both", 1400))


@nobody_only
def test_permissions_are_explained() -> None:
    tmp_path = Path(tempfile.mkdtemp())  # pytest's own is root's alone
    tmp_path.chmod(0o755)
    (tmp_path / "closed" / "door").mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    locked = listener(str(tmp_path / "locked"))
    os.chmod(tmp_path / "locked", 0o600)
    os.seteuid(65534)
    try:
        with pytest.raises(VhostError, match="no permission to make a socket"):
            sockets.listen(str(tmp_path / "x"), 0o600, None)
        with pytest.raises(VhostError, match="no permission to look into"):
            sockets.check_path(str(tmp_path / "closed" / "door" / "x"))
        with pytest.raises(PermissionError) as error:
            sockets.connect(str(tmp_path / "locked"))
        assert "no permission to connect" in sockets.explain_connect(error.value)
    finally:
        os.seteuid(0)
        locked.close()
        shutil.rmtree(tmp_path)


def test_a_port_that_cannot_start_can_be_closed(tmp_path: Path) -> None:
    with VhostBox(0) as box:
        config = VhostConfig(str(tmp_path / "no" / "x"), "server", 1400)
        port = VhostPort(5, "vm5", config, box, box.loop)
        with pytest.raises(VhostError):
            port.start()
        port.close()


# ---- the stream


def test_messages_that_come_byte_by_byte() -> None:
    with VhostBox(1) as box:
        front = box.front(0)
        assert front.sock is not None
        payload = m.U64.pack(1 << 32 | 1 << 30)
        for byte in m.HEADER.pack(Request.SET_FEATURES, m.VERSION, 8) + payload:
            front.sock.send(bytes([byte]))
            box.pump()
        front.send(Request.GET_FEATURES)
        assert front.receive()[0] == Request.GET_FEATURES
        assert box.ports[0].status()["features"] == ["PROTOCOL_FEATURES", "VERSION_1"]


def test_messages_that_come_all_at_once() -> None:
    with VhostBox(1) as box:
        front = box.front(0)
        assert front.sock is not None
        front.sock.send(m.HEADER.pack(Request.GET_FEATURES, m.VERSION, 0) * 200)
        for _ in range(200):
            assert front.receive()[0] == Request.GET_FEATURES


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("count", [9, 28, 29, 200])
def test_more_descriptors_than_a_message_has(count: int) -> None:
    """[218daf1664]: also those that came with a truncated control message are closed."""
    with VhostBox(1) as box:
        front = box.front(0)
        front.settle()
        before = open_fds()
        assert front.sock is not None
        message = m.HEADER.pack(Request.SET_MEM_TABLE, m.VERSION, 8) + bytes(8)
        too_many_fds(front.sock, message, [front.ram.regions[0].fd] * count)
        assert front.is_closed()
        assert open_fds() == before - 1


def test_a_payload_of_more_than_4_kib() -> None:
    with VhostBox(1) as box:
        front = box.front(0)
        assert front.sock is not None
        front.sock.send(m.HEADER.pack(Request.GET_FEATURES, m.VERSION, 4097))
        assert front.is_closed()


def test_a_front_end_that_reads_no_answers_loses_its_connection() -> None:
    with VhostBox(2) as box:
        front = box.front(0)
        front.settle()
        assert front.sock is not None
        question = m.HEADER.pack(Request.GET_FEATURES, m.VERSION, 0) * 50
        for _ in range(5000):
            try:
                front.sock.send(question)
            except (BlockingIOError, BrokenPipeError):
                box.pump()
            if box.ports[0].status()["state"] == "listening":
                break
        assert "does not read" in str(box.ports[0].status()["reason"])
        box.front(1).boot()


def test_status_tells_what_was_negotiated() -> None:
    with VhostBox(1, mac=bytes.fromhex("02000000000a")) as box:
        front = box.front(0)
        front.boot()
        status = box.ports[0].status()
        assert status["state"] == "connected"
        assert status["features"] == ["MRG_RXBUF", "PROTOCOL_FEATURES", "VERSION_1"]
        assert status["protocol_features"] == ["MQ", "REPLY_ACK"]
        assert status["mac"] == "02:00:00:00:00:0a"
        assert status["last_step"] == "GET_FEATURES"
        (region,) = status["regions"]
        assert region.pop("numa_node") == status["numa_node"]
        assert region == {"guest": 0x10000000, "size_bytes": 8 << 20, "offset": 0}
        queues = status["queues"]
        assert isinstance(queues, list)
        assert [q["role"] for q in queues] == ["rx", "tx"]
        assert all(q["started"] and q["enabled"] and q["size"] == 256 for q in queues)


def test_a_port_may_be_closed_at_any_time() -> None:
    with VhostBox(2) as box:
        a, b = box.front(0), box.front(1)
        a.boot(MERGEABLE)
        b.boot(MERGEABLE)
        b.post(1)
        port = box.ports.pop(1)
        box.republish()
        port.close()
        assert b.is_closed()
        a.transmit(frame(64))
        box.settle()
