"""Queues move between workers that run: every frame arrives once, and in the order of its flow."""

import threading
from collections.abc import Iterator

import pytest

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
