"""Sockets in the file system: what is at the path already, who may connect, and why not."""

import errno
import grp
import os
import resource
import socket
from pathlib import Path

import pytest

from tests.fakes.vhostbox import VhostBox
from vhost import sockets
from vhost.core import Port
from vhost.errors import CoreError, VhostError
from vhost.messages import Request


def test_a_group_may_connect(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    listener = sockets.listen(path, 0o660, grp.getgrgid(os.getegid()).gr_name)
    assert os.stat(path).st_gid == os.getegid()
    listener.close()
    with pytest.raises(VhostError, match="there is no group nobody-has-this"):
        sockets.listen(path, 0o660, "nobody-has-this")


def test_a_socket_of_another_kind_is_nobodys_to_remove(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        with pytest.raises(VhostError, match=os.strerror(errno.EPROTOTYPE)):
            sockets.listen(path, 0o600, None)
    assert Path(path).is_socket()


def test_a_listener_with_a_full_queue_is_a_listener(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as waiting:
        other.bind(path)
        other.listen(0)
        waiting.connect(path)
        with pytest.raises(VhostError, match="another process listens here"):
            sockets.listen(path, 0o600, None)


def test_a_stale_socket_that_we_may_not_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "a.sock")
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(path)

    def refuse(_path: str) -> None:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(VhostError, match="grant write access to it"):
        sockets.listen(path, 0o600, None)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOENT, "does not exist yet"),
        (errno.ECONNREFUSED, "nobody listens"),
        (errno.EACCES, "write permission"),
        (errno.EPROTOTYPE, os.strerror(errno.EPROTOTYPE)),
    ],
)
def test_why_there_is_no_connection(number: int, says: str) -> None:
    assert says in sockets.explain_connect(OSError(number, ""))


@pytest.mark.parametrize("room", range(4))
def test_a_port_without_descriptors_left_leaves_none_behind(room: int) -> None:
    """room: for so many files more."""
    first = os.dup(0)
    os.close(first)
    before = set(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = ""
    resource.setrlimit(resource.RLIMIT_NOFILE, (first + room, hard))
    try:
        Port(0).close()
    except CoreError as error:
        said = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    # A port needs two or three, depending on whether it is the first.
    assert room == 2 or bool(said) == (room < 2)
    assert said in ("", f"cannot make a port: {os.strerror(errno.EMFILE)}")
    assert set(os.listdir("/proc/self/fd")) == before


def test_answers_that_are_not_read_are_kept_and_come_later() -> None:
    with VhostBox(1) as box:
        front, asked = box.front(0), 600  # a socket holds some 300 messages
        for _ in range(asked):
            front.send(Request.GET_FEATURES)
            box.pump()
        connection = box.ports[0]._connection
        assert connection is not None
        assert connection.has_unsent
        for _ in range(asked):
            assert front.receive()[0] == Request.GET_FEATURES
        assert not connection.has_unsent
        front.boot()
        assert box.ports[0].status()["state"] == "connected"
