"""What a port's status says of a handshake that hangs, of rings, and of what they did."""

import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes.frontend import BASIC, MERGEABLE, FrontEnd
from tests.fakes.ram import Region
from tests.fakes.vhostbox import VhostBox, frame, pair
from vhost import messages as m
from vhost.device import CoreDevice
from vhost.messages import Feature, Request


def status(box: VhostBox, port: int = 0) -> dict[str, Any]:
    return box.ports[port].status()


def queue(box: VhostBox, port: int, index: int) -> dict[str, Any]:
    (row,) = [row for row in status(box, port)["queues"] if row["index"] == index]
    return dict(row)


def test_each_step_of_a_handshake_says_what_comes_next() -> None:
    def ring(request: Request, payload: bytes, fds: list[int]) -> Callable[[FrontEnd], None]:
        return lambda front: front.send(request, payload, fds)

    with VhostBox(1) as box:
        front = box.front(0)
        kick = os.eventfd(0)
        desc, used, avail = (front.ram.user(front.ram.alloc(4096, 16)) for _ in range(3))

        def started(index: int) -> list[tuple[str, Callable[[FrontEnd], None]]]:
            state = m.VRING_STATE.pack(index, 16)
            address = m.VRING_ADDR.pack(index, 0, desc, used, avail, 0)
            return [
                (f"SET_VRING_NUM of ring {index}", ring(Request.SET_VRING_NUM, state, [])),
                (f"SET_VRING_ADDR of ring {index}", ring(Request.SET_VRING_ADDR, address, [])),
                (
                    f"SET_VRING_KICK of ring {index}",
                    ring(Request.SET_VRING_KICK, m.U64.pack(index), [kick]),
                ),
            ]

        steps = [
            ("SET_FEATURES", lambda front: front.negotiate(BASIC)),
            ("the guest's memory (SET_MEM_TABLE)", FrontEnd.share_memory),
            *started(0),
            *started(1),
            (
                "SET_VRING_ENABLE",
                ring(Request.SET_VRING_ENABLE, m.VRING_STATE.pack(0, 1), []),
            ),
        ]
        front.settle()
        for reason, step in steps:
            assert status(box)["reason"] == f"waiting for {reason}"
            step(front)
            front.settle()
        assert status(box)["reason"] == ""
        front.stop_ring(1)
        assert status(box)["reason"] == "waiting for SET_VRING_KICK of ring 1"
        assert queue(box, 0, 1)["reason"] == "waiting for SET_VRING_KICK"
        os.close(kick)


def test_a_lost_connection_leaves_its_last_step() -> None:
    with VhostBox(1) as box:
        front = box.front(0)
        front.boot()
        assert status(box)["reason"] == ""
        front.send(Request.SET_VRING_NUM, b"short")
        assert front.is_closed()
        assert "SET_VRING_NUM" in status(box)["reason"]
        assert status(box)["last_step"] == "GET_FEATURES"
        assert (status(box)["queues"], status(box)["features"]) == ([], [])


def test_a_broken_ring_is_the_reason() -> None:
    with VhostBox(2) as box:
        a, _ = pair(box)
        a.rings[1].offer(a.ring_size)
        box.settle()
        assert status(box)["reason"] == "ring 1 is broken: head_range"
        assert status(box, 1)["reason"] == ""


def test_a_ring_tells_its_kind() -> None:
    with VhostBox(1) as box:
        box.front(0).boot(MERGEABLE | Feature.EVENT_IDX)
        row = queue(box, 0, 1)
        assert (row["kind"], row["role"], row["size"]) == ("split", "tx", 256)
        assert (row["in_order"], row["indirect"], row["event_idx"]) == (False, False, True)


def test_kicks_calls_and_drops_of_a_ring() -> None:
    with VhostBox(2) as box:
        a, b = pair(box)
        b.post(1)
        for _ in range(3):
            os.eventfd_write(a.rings[1].kick, 1)
        a.transmit(frame(64))
        box.settle()
        a.transmit(b"tiny")
        box.settle()
        sender, receiver = queue(box, 0, 1), queue(box, 1, 0)
        assert sender["kicks"] == 3
        assert sender["drops"] == {"short": 1}
        assert sender["calls_sent"] == 2  # nobody asked for silence
        assert (receiver["calls_sent"], receiver["calls_spared"]) == (1, 0)
        b.rings[0].set_avail_flags(1)
        b.post(1)
        a.transmit(frame(64))
        box.settle()
        assert queue(box, 1, 0)["calls_spared"] == 1
        a.transmit(frame(64))
        for _ in range(3):
            box.breathe(advance_ns=1_000_000)
        assert queue(box, 1, 0)["drops"] == {"ring_full": 1}
        assert box.drops(1) == {"ring_full": 1}


def test_kicks_through_a_socket_are_not_counted() -> None:
    with VhostBox(1) as box:
        front = box.front(0)
        front.boot()
        reader, writer = socket.socketpair()
        front.send(Request.SET_VRING_KICK, m.U64.pack(0), [reader.fileno()])
        front.send(Request.SET_VRING_KICK, m.U64.pack(1 | m.VRING_NO_FD))
        front.settle()
        assert [row["kicks"] for row in status(box)["queues"]] == [None, None]
        assert [row["kick"] for row in status(box)["queues"]] == [True, False]
        reader.close()
        writer.close()


def test_the_node_that_holds_most_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with VhostBox(1) as box:
        box.front(0).boot()
        region: Region = box.fronts[0].ram.regions[0]
        spec = m.RegionSpec(region.gpa, region.size, region.user, 0, (0, 0), -1)
        sizes = [(spec, 1), (m.RegionSpec(0, 100, 0, 0, (0, 0), -1), 0), (spec, None)]
        monkeypatch.setattr(CoreDevice, "regions", property(lambda _: sizes))
        assert status(box)["numa_node"] == 1
        monkeypatch.setattr(CoreDevice, "regions", property(lambda _: [(spec, None)]))
        assert status(box)["numa_node"] is None
