"""Descriptors that a front-end shares with us: nothing that it does to them makes us wait.  A test
that fails here does not end: the call sleeps in the kernel."""

import contextlib
import os
import select
import socket
from pathlib import Path

import pytest

from tests.fakes.frontend import FrontEnd
from tests.fakes.vhostbox import VhostBox, frame, pair
from vhost import messages as m
from vhost.messages import Request

FULL = 2**64 - 2
AF_XDP = 44  # linux/socket.h


def fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def nameless_socket() -> int:
    """Of a family that has no getsockname(): one is for everybody, the other wants privilege."""
    for family, kind in ((socket.AF_ALG, socket.SOCK_SEQPACKET), (AF_XDP, socket.SOCK_RAW)):
        try:
            return socket.socket(family, kind).detach()
        except OSError:
            continue
    pytest.skip("neither AF_ALG nor AF_XDP sockets can be made here")


def set_call(front: FrontEnd, index: int, fd: int) -> int:
    return front.tell(Request.SET_VRING_CALL, m.U64.pack(index), [fd])


def test_a_full_counter_that_blocks_stops_nobody() -> None:
    with VhostBox() as box:
        a, b = pair(box)
        b.post(4)
        for ring in (b.rings[0], a.rings[1]):
            ring.calls()
            os.eventfd_write(ring.call, FULL)
            os.set_blocking(ring.call, True)
        a.transmit(frame(64))
        a.transmit(frame(65))
        box.settle()
        assert b.frames() == [frame(64), frame(65)]
        assert os.eventfd_read(b.rings[0].call) >= FULL
        a.transmit(frame(66))
        box.settle()
        assert os.eventfd_read(b.rings[0].call) == 1, "it counts again"


def test_each_call_counts_one() -> None:
    with VhostBox() as box:
        a, b = pair(box)
        b.post(4)
        b.rings[0].calls()
        for _ in range(3):
            a.transmit(frame(64))
            box.settle()
        assert b.rings[0].calls() == 3


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_full_socket_that_blocks_stops_nobody(kind: socket.SocketKind) -> None:
    """What User Mode Linux wants to be called through."""
    with VhostBox() as box:
        a, b = pair(box)
        b.post(4)
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        ours.setblocking(False)
        assert set_call(b, 0, theirs.fileno()) == 0
        assert len(ours.recv(100)) == 8, "the call that a new descriptor begins with"
        a.transmit(frame(64))
        box.settle()
        assert len(ours.recv(100)) == 8
        with contextlib.suppress(BlockingIOError):
            while True:
                theirs.send(bytes(1000), socket.MSG_DONTWAIT)
        theirs.setblocking(True)
        a.transmit(frame(65))
        box.settle()
        ours.close()
        a.transmit(frame(66))
        box.settle()
        assert b.frames() == [frame(64), frame(65), frame(66)]
        theirs.close()


def test_a_full_error_counter_that_blocks_stops_nobody() -> None:
    with VhostBox() as box:
        a, b = pair(box)
        ring = a.rings[1]
        os.eventfd_write(ring.error, FULL)
        os.set_blocking(ring.error, True)
        ring.offer(999)
        box.settle()
        box.pump()
        assert box.ring_state(0, 1) == "head_range"
        b.post(1)


@pytest.mark.parametrize(
    "request_", [Request.SET_VRING_CALL, Request.SET_VRING_KICK, Request.SET_VRING_ERR]
)
@pytest.mark.parametrize("kind", ["file", "device", "socket", "nameless", "epoll", "fifo", "pipe"])
def test_descriptors_of_any_other_kind_are_refused(
    tmp_path: Path, request_: Request, kind: str
) -> None:
    """A file may lie on a file system that the front-end serves itself; a pipe, or a socket of the
    network, has a lock that its other users can keep."""
    os.mkfifo(tmp_path / "fifo")
    poll = select.epoll()
    read_end, write_end = os.pipe()
    opened = {
        "file": lambda: os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT),
        "device": lambda: os.open("/dev/null", os.O_RDWR),
        "socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach(),
        "nameless": nameless_socket,
        "epoll": lambda: os.dup(poll.fileno()),
        "pipe": lambda: os.dup(write_end),
        "fifo": lambda: os.open(tmp_path / "fifo", os.O_RDWR),
    }[kind]()
    with VhostBox() as box:
        a, b = pair(box)
        before = fds()
        assert b.tell(request_, m.U64.pack(0), [opened]) == 1
        assert "neither an event counter nor a UNIX socket" in str(
            box.ports[1].status()["last_step"]
        )
        assert fds() == before
        b.post(1)
        a.transmit(frame(64))
        box.settle()
        assert b.frames() == [frame(64)], "the former one is still in use"
    os.close(opened)
    poll.close()
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize("kind", ["network", "nameless"])
def test_device_state_through_a_socket_of_another_kind_is_refused(kind: str) -> None:
    with VhostBox() as box:
        front = box.front(0)
        front.negotiate()
        before = fds()
        if kind == "network":
            fd = socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()
        else:
            fd = nameless_socket()
        answer = front.ask(Request.SET_DEVICE_STATE_FD, m.DEVICE_STATE_FD.pack(0, 0), [fd])
        assert m.U64.unpack(answer) == (m.VRING_NO_FD | 1,)
        assert "neither a pipe nor a UNIX socket" in str(box.ports[0].status()["last_step"])
        os.close(fd)
        assert fds() == before
