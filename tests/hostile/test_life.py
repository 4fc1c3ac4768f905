"""Front-ends that come and go, and those that stall: one test for each row of docs/hostile.md."""

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.neighbourhood import (
    OFFENDER,
    RECEIVE_BUFFERS,
    SEND_BUFFERS,
    Neighbourhood,
    resident_bytes,
    usage,
)
from tests.fakes.vhostbox import A, B, frame, mac
from vhost import messages as m
from vhost.messages import Request

RX, TX = 0, 1
FULL = 2**64 - 2  # what an event counter holds at most
WAIT_BREATHS = 110  # of a microsecond each: what a full ring is waited for, and some
MOST_GROWTH_BYTES = 2 << 20  # what 1000 connections may cost, by fragmentation


# ---- a thousand connections


def behave(block: Neighbourhood) -> None:
    block.offender.boot()
    block.works()


def misbehave(block: Neighbourhood) -> None:
    block.offender.boot()
    block.offender.rings[TX].offer(0xFFFF)
    os.eventfd_write(block.offender.rings[TX].kick, 1)
    block.expect_broken(TX, "head_range")


def break_off(block: Neighbourhood) -> None:
    """In the middle of setting up, with half a message and its descriptor under way."""
    block.offender.negotiate()
    block.offender.share_memory()
    block.offender.start_ring(TX)
    assert block.offender.sock is not None
    half = m.HEADER.pack(Request.SET_VRING_CALL, m.VERSION, 8) + b"\0"
    socket.send_fds(block.offender.sock, [half], [block.offender.rings[TX].call])
    block.pump()


def take_memory(block: Neighbourhood) -> None:
    block.offender.boot()
    os.ftruncate(block.offender.ram.regions[0].fd, 0)
    block.expect_gone("memory")


KINDS: dict[str, Callable[[Neighbourhood], None]] = {
    "behave": behave,
    "misbehave": misbehave,
    "break off": break_off,
    "take memory away": take_memory,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_connections_leave_nothing_behind(kind: str) -> None:
    with Neighbourhood(None) as block:

        def cycles(count: int) -> None:
            for _ in range(count):
                KINDS[kind](block)
                block.come_back()
                block.turns(3)

        cycles(100)
        before, memory = usage(), resident_bytes()
        cycles(1000)
        assert usage() == before
        assert resident_bytes() - memory < MOST_GROWTH_BYTES
        assert block.ports[OFFENDER].status()["connections"] == 1101
        block.offender.boot()
        block.works()


# ---- stalling


def breaths(stall: Callable[[Neighbourhood], Callable[[], None]] | None) -> list[int]:
    """Frames that the neighbours got in each of 600 breaths, beside somebody who stalls.

    stall: begins it, and returns what it goes on doing before every breath.
    """
    got = []
    with Neighbourhood() as block:
        go_on = stall(block) if stall else None
        for _ in range(600):
            if go_on is not None:
                go_on()
            before = block.frames_between_neighbours
            block.turn()
            got.append(block.frames_between_neighbours - before)
    return got


def never_reads_answers(block: Neighbourhood) -> Callable[[], None]:
    sock = block.offender.sock
    assert sock is not None
    question = m.HEADER.pack(Request.GET_FEATURES, m.VERSION, 0) * 20

    def go_on() -> None:
        if block.ports[OFFENDER].status()["state"] != "connected":
            return
        with contextlib.suppress(BlockingIOError):
            sock.send(question)
        block.serve_sockets()
        block.may_be_gone("does not read our replies")

    return go_on


def never_drains(block: Neighbourhood) -> Callable[[], None]:
    """Its partner sends and sends; the offender posts no buffers."""
    data = mac(A) + mac(B) + frame(64)[12:]

    def go_on() -> None:
        block.partner.rings[TX].reap()
        if block.partner.rings[TX].free:
            block.partner.transmit(data)
            os.eventfd_write(block.partner.rings[TX].kick, 1)

    return go_on


def never_takes_back(block: Neighbourhood) -> Callable[[], None]:
    """It offers all of its TX ring and never looks at what it gets back."""
    block.partner.post(200)
    for seed in range(200):
        block.offender.transmit(frame(64, seed))
    os.eventfd_write(block.offender.rings[TX].kick, 1)
    return lambda: None


def fills_its_counters(block: Neighbourhood) -> Callable[[], None]:
    """Nobody reads the call and error counters, they are full from the start, and who writes to
    them waits: the front-end took O_NONBLOCK away again."""
    a = block.offender
    for ring in (a.rings[RX], a.rings[TX]):
        ring.calls()
        for fd in (ring.call, ring.error):
            os.eventfd_write(fd, FULL)
            os.set_blocking(fd, True)
    block.partner.post(100)

    def go_on() -> None:
        if a.rings[TX].free and a.rings[TX].avail_idx < 100:
            a.transmit(frame(64))
        elif a.rings[TX].avail_idx == 100:
            a.rings[TX].offer(0xFFFF)
        os.eventfd_write(a.rings[TX].kick, 1)
        block.serve_sockets()
        block.may_break(TX)

    return go_on


def stops_in_a_message(block: Neighbourhood) -> Callable[[], None]:
    sock = block.offender.sock
    assert sock is not None
    sock.send(m.HEADER.pack(Request.SET_MEM_TABLE, m.VERSION, 4000) + bytes(100))
    return block.serve_sockets


STALLS: dict[str, Callable[[Neighbourhood], Callable[[], None]]] = {
    "never reads answers": never_reads_answers,
    "never drains its ring": never_drains,
    "never takes back": never_takes_back,
    "fills its counters": fills_its_counters,
    "stops in a message": stops_in_a_message,
}


@pytest.mark.parametrize("stall", STALLS)
def test_who_stalls_costs_its_neighbours_not_one_breath(stall: str) -> None:
    """Each frame between them arrives in the very breath in which it arrives without the other."""
    alone = breaths(None)
    assert alone == [2] * 600
    assert breaths(STALLS[stall]) == alone


def test_frames_for_who_stalls_hold_up_their_sender_once() -> None:
    """LEFT sends to a guest that takes nothing and to RIGHT in turns.

    Its frames for the one wait for 100 us, once; those for the other pass them, as long as LEFT has
    buffers to send from.
    """
    with Neighbourhood() as block:
        left = block.left
        to_nobody = mac(A) + left.own + frame(64)[12:]
        block.works()  # the switch knows now where A is
        got = []
        for _ in range(WAIT_BREATHS + 200):
            if len(left.front.rings[TX].free) > RECEIVE_BUFFERS:
                left.front.transmit(to_nobody)
            before = block.frames_between_neighbours
            block.turn()
            got.append(block.frames_between_neighbours - before)
        assert got[: SEND_BUFFERS - 1] == [2] * (SEND_BUFFERS - 1)
        assert got[-200:] == [2] * 200


def test_a_call_descriptor_that_could_block_is_refused(tmp_path: Path) -> None:
    with Neighbourhood() as block:
        a, b = block.offender, block.partner
        b.post(2)
        fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        before = len(os.listdir("/proc/self/fd"))
        assert b.tell(Request.SET_VRING_CALL, m.U64.pack(0), [fd]) != 0
        assert len(os.listdir("/proc/self/fd")) == before
        a.transmit(frame(64))
        block.turns(3)
        assert os.fstat(fd).st_size == 0
        assert b.rings[0].calls() > 0, "the former one is still in use"
        b.stop_ring(0)
        assert b.tell(Request.SET_VRING_CALL, m.U64.pack(0), [fd]) != 0, "stopped or not"
        os.close(fd)
