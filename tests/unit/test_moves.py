"""Queues move between workers that run: every frame arrives once, and in the order of its flow."""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fakes.daemons import Daemon, running
from tests.fakes.frontend import FrontEnd
from tests.fakes.neighbourhood import Neighbour
from tests.fakes.plugs import Maker, Plug, bridge, config, died, plugs, vm
from vswitch import core
from vswitch.host import allowed_cpus
from vswitch.model import Config
from vswitch.switch import Switch

pytestmark = [
    pytest.mark.skipif(len(allowed_cpus()) < 2, reason="needs a second CPU"),
    pytest.mark.may_skip,
]

FLOWS = 2
MOVES = 40


@pytest.fixture
def switch() -> Iterator[Switch]:
    made = Switch(Maker(), died)
    yield made
    made.close()


def settings(round_: int) -> Config:
    """Senders change places with each round; the receivers have both workers."""
    cpus = tuple(allowed_cpus()[:2])
    senders = [vm(f"from{i}", cpus=(cpus[(i + round_) % 2],)) for i in range(FLOWS)]
    receivers = [vm(f"to{i}", cpus=cpus) for i in range(FLOWS)]
    return config(bridge(*senders, *receivers), cpus=cpus)


def mac(kind: int, flow: int) -> bytes:
    return bytes([2, 0, 0, 0, kind, flow])


class Flow:
    """Numbered frames from one cable to another, as fast as the receiver answers for.

    At most WINDOW are under way, so that no buffer of the kernel's overflows.
    """

    WINDOW = 50

    def __init__(self, number: int, sender: Plug, receiver: Plug) -> None:
        self.head = bytes(12) + mac(2, number) + mac(1, number) + b"\x88\xb5"
        self.sender, self.receiver = sender.cable, receiver.cable
        self.wrong: list[str] = []
        self.count = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.stop.is_set() and not self.wrong:
            for i in range(self.WINDOW):
                self.sender.send(self.head + (self.count + i).to_bytes(8, "big") + bytes(40))
            for i in range(self.WINDOW):
                try:
                    got = self.receiver.recv(2048)
                except TimeoutError:
                    self.wrong.append(f"frame {self.count + i} is lost")
                    return
                if (number := int.from_bytes(got[26:34], "big")) != self.count + i:
                    self.wrong.append(f"frame {number} came instead of {self.count + i}")
            self.count += self.WINDOW


def test_nothing_is_lost_doubled_or_overtaken_while_queues_move(switch: Switch) -> None:
    switch.apply(settings(0))
    ends = plugs(switch)
    flows = [Flow(i, ends[f"from{i}"], ends[f"to{i}"]) for i in range(FLOWS)]
    for i, flow in enumerate(flows):  # the receivers make themselves known
        flow.receiver.settimeout(10)
        flow.receiver.send(bytes(12) + mac(1, i) + mac(2, i) + b"\x88\xb5" + bytes(46))
    while len(switch.state.fdbs["br0"].dump(0)) < FLOWS:
        switch.sync()
    for plug in ends.values():  # what was flooded meanwhile
        drain(plug)
    for flow in flows:
        flow.thread.start()
    for round_ in range(1, MOVES + 1):
        seen = [flow.count for flow in flows]
        switch.apply(settings(round_))
        for i, flow in enumerate(flows):
            assert switch.worker_of(ends[f"from{i}"].c_rxqs[0]) == (i + round_) % 2
            while flow.count <= seen[i] + flow.WINDOW and not flow.wrong:
                switch.sync()
    for flow in flows:
        flow.stop.set()
        flow.thread.join()
    assert [flow.wrong for flow in flows] == [[], []]
    switch.sync()
    for i, flow in enumerate(flows):
        assert core.port_counters(ends[f"from{i}"].c_port).values["rx_packets"] == flow.count
        assert core.rxq_counters(ends[f"from{i}"].c_rxqs[0])["packets"] == flow.count
        assert core.port_counters(ends[f"to{i}"].c_port).values["tx_packets"] >= flow.count


def drain(plug: Plug) -> None:
    plug.cable.setblocking(False)
    try:
        while True:
            plug.cable.recv(2048)
    except BlockingIOError:
        plug.cable.settimeout(10)


# ---- guests and a daemon

PAIRS = 2
RELOADS = 12
FRAMES = 150  # of each guest, between two reloads


def text(round_: int) -> str:
    """Guests 0 and 1 talk, and so do 2 and 3; each changes its worker with every round."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    ports = [
        f'[bridges.br0.ports.vm{i}]\ntype = "vhost-user"\nmode = "server"\npath = "vm{i}.sock"\n'
        f"cpus = [{cpus[(i + round_) % 2]}]\n"
        for i in range(2 * PAIRS)
    ]
    head = f'control = "control.sock"\n[workers]\ncpus = {cpus}\n[bridges.br0]\n'
    return head + "".join(ports)


def meet(tmp_path: Path, stack: ExitStack) -> list[Neighbour]:
    moment = threading.Event()

    def pause() -> None:
        moment.wait(0.001)

    guests = []
    for i in range(2 * PAIRS):
        front = FrontEnd(pause)
        stack.callback(front.close)
        front.connect(str(tmp_path / f"vm{i}.sock"))
        guests.append(Neighbour(front, mac(3, i), mac(3, i ^ 1)))
    return guests


def talk(guests: list[Neighbour], frames: int) -> None:
    """Every guest sends so many frames more, and gets as many."""
    goals = [guest.sent + frames for guest in guests]
    while any(guest.received < goal for guest, goal in zip(guests, goals, strict=True)):
        for guest, goal in zip(guests, goals, strict=True):
            if guest.sent < goal:
                guest.send()
            guest.collect()


def test_guests_notice_nothing_while_their_queues_move(tmp_path: Path) -> None:
    file = tmp_path / "vsw.toml"
    file.write_text(text(0))
    with running(file) as daemon, ExitStack() as stack:
        guests = meet(tmp_path, stack)
        talk(guests, 1)
        for round_ in range(1, RELOADS + 1):
            stop = threading.Event()
            reload = threading.Thread(target=reload_then, args=(daemon, round_, stop))
            reload.start()
            while not stop.is_set():
                talk(guests, FRAMES)
            reload.join()
        assert [port["workers"] for port in daemon.ask("ports")] == [[i % 2] for i in range(4)]
        # All that was sent was checked when it came; nothing else was sent on, or dropped.
        assert [port["rx_packets"] for port in daemon.ask("ports")] == [g.sent for g in guests]
        assert [port["drops"] for port in daemon.ask("ports")] == [0] * len(guests)


def reload_then(daemon: Daemon, round_: int, stop: threading.Event) -> None:
    try:
        daemon.reload(text(round_))
    finally:
        stop.set()
