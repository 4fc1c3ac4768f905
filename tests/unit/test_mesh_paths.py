"""mesh/paths.py and mesh/pathmtu.py against ways that are made up: delay, loss, sizes, death."""

import heapq
from dataclasses import dataclass
from ipaddress import IPv4Address
from random import Random

import pytest

from mesh.address import Address
from mesh.paths import (
    MS,
    RAISE_NS,
    MtuChanged,
    Paths,
    S,
    SendProbe,
    StillHere,
    UsePath,
    WayStatus,
)
from mesh.relay import Through

ONE, TWO, OTHER = (Address(IPv4Address(f"192.0.2.{n}"), 7400) for n in (1, 2, 9))
PEER = 3
CEILING = 9000


@dataclass
class Wire:
    """rtt: ns.  mtu: largest packet that arrives; more than local cannot even be sent."""

    rtt: int = 10 * MS
    mtu: int = CEILING
    local: int = 65535
    loss: float = 0.0
    dead: bool = False


class World:
    def __init__(self, *endpoints, wires=None, seed=1):
        self.now = 1 * S
        self.rng = Random(seed)
        self.paths = Paths(CEILING, 32)
        self.wires = {path: Wire() for path in (ONE, TWO, OTHER, Through(7))} | (wires or {})
        self.coming = []
        self.mtus = []
        self.used = []
        self.probes = []
        self.still_here = []
        self.paths.configure(PEER, endpoints, self.now)

    def ready(self, path, index=0x1000):
        self.paths.moved(PEER, path, self.now)
        self.paths.ready(PEER, index, path, self.now)
        self.drain()

    def drain(self):
        while events := self.paths.events():
            for event in events:
                match event:
                    case SendProbe():
                        self.send(event)
                    case UsePath():
                        self.used.append(event.path)
                    case MtuChanged():
                        self.mtus.append(event.mtu_bytes)
                    case StillHere():
                        self.still_here.append(self.now)

    def send(self, event):
        wire = self.wires[event.path]
        self.probes.append((self.now, event.path, event.ip_bytes))
        if event.ip_bytes > wire.local:
            self.paths.unsent(event.probe, too_long=True, now=self.now)
        elif not wire.dead and event.ip_bytes <= wire.mtu and self.rng.random() >= wire.loss:
            heapq.heappush(self.coming, (self.now + wire.rtt, event.probe))

    def run(self, duration):
        end = self.now + duration
        while True:
            timer = self.paths.next_timer()
            moments = [m for m in (timer, self.coming[0][0] if self.coming else None) if m]
            if not moments or min(moments) > end:
                break
            self.now = max(self.now, min(moments))
            while self.coming and self.coming[0][0] <= self.now:
                came, probe = heapq.heappop(self.coming)
                self.paths.answered(PEER, probe, came, self.now)
            self.paths.poll(self.now)
            self.drain()
        self.now = end

    def busy(self):
        self.paths.busy({PEER}, self.now)

    def way(self, path) -> WayStatus:
        return next(way for way in self.paths.status(PEER) if way.path == path)

    @property
    def in_use(self):
        return next(way.path for way in self.paths.status(PEER) if way.used)


@pytest.mark.parametrize("mtu", [576, 577, 1184, 1400, 1401, 8903, 8999, CEILING])
@pytest.mark.parametrize("local", [65535, 1500])
def test_the_mtu_is_found_exactly(mtu, local):
    world = World(ONE, wires={ONE: Wire(mtu=mtu, local=local)})
    world.ready(ONE)
    assert world.mtus == [CEILING], "believed until it is disproved"
    world.run(20 * S)
    assert world.way(ONE).mtu_bytes == min(mtu, local)
    assert world.way(ONE).alive
    assert len(world.mtus) <= 2, "no value in between is told"


def test_a_way_that_carries_all_costs_two_probes_at_first():
    world = World(ONE)
    world.ready(ONE)
    world.run(1 * S)
    assert [size for _, _, size in world.probes] == [576, CEILING]
    assert world.way(ONE).rtt_ns == 10 * MS


def test_by_way_of_another_node_there_is_less_room():
    world = World()
    world.ready(Through(7))
    assert world.mtus == [CEILING - 32]


def test_a_way_that_shrinks_is_found_out_within_seconds_and_raised_again():
    world = World(ONE)
    world.ready(ONE)
    world.busy()
    world.run(10 * S)
    world.wires[ONE].mtu = 1280
    world.run(5 * S)
    assert world.mtus[-1] == 1280
    world.wires[ONE].mtu = 3000
    world.run(RAISE_NS + 10 * S)
    assert world.mtus[-1] == 3000


@pytest.mark.parametrize("seed", range(10))
def test_loss_is_not_taken_for_a_size(seed):
    print(f"seed={seed}")
    world = World(ONE, wires={ONE: Wire(mtu=1400, loss=0.3)}, seed=seed)
    world.ready(ONE)
    world.busy()
    world.run(120 * S)
    assert 0.1 < world.way(ONE).loss < 0.6
    assert world.way(ONE).alive
    assert 1330 <= world.mtus[-1] <= 1400


def test_a_dead_way_says_nothing_about_sizes():
    world = World(ONE)
    world.ready(ONE)
    world.busy()
    world.run(10 * S)
    world.wires[ONE].dead = True
    world.run(30 * S)
    assert not world.way(ONE).alive
    assert world.way(ONE).loss > 0
    assert world.mtus == [CEILING]
    world.wires[ONE].dead = False
    world.run(5 * S)
    assert world.way(ONE).alive


def test_another_way_is_used_when_one_dies():
    world = World(ONE, TWO, wires={TWO: Wire(mtu=1300)})
    world.ready(ONE)
    assert world.used == [ONE]
    world.busy()
    world.run(20 * S)
    assert world.used == [ONE]
    world.wires[ONE].dead = True
    world.run(3 * S)
    assert world.used == [ONE, TWO]
    assert world.mtus[-1] == 1300, "known before it is used"
    world.wires[ONE].dead = False
    world.run(30 * S)
    assert world.in_use == TWO, "as good is no reason to change"


def test_the_peer_in_between_is_used_while_no_endpoint_answers():
    detour = Through(7)
    world = World(ONE, detour, wires={ONE: Wire(rtt=2 * MS), detour: Wire(rtt=2 * MS)})
    world.ready(ONE)
    world.busy()
    world.run(60 * S)
    assert world.in_use == ONE
    world.wires[ONE].dead = True
    world.run(10 * S)
    assert world.in_use == detour
    assert world.mtus[-1] == CEILING - 32
    world.wires[ONE].dead = False
    world.run(120 * S)  # until what was lost is forgotten
    assert world.in_use == ONE, "the other one has work for two"


def test_the_peer_in_between_is_used_where_much_is_lost():
    world = World(ONE, Through(7), wires={ONE: Wire(loss=0.3)})
    world.ready(ONE)
    world.busy()
    world.run(180 * S)
    assert world.in_use == Through(7)


def test_the_faster_way_is_used_but_not_at_once():
    world = World(ONE, TWO, wires={ONE: Wire(rtt=40 * MS)})
    world.ready(ONE)
    world.busy()
    world.run(3 * S)
    assert world.in_use == ONE
    world.run(10 * S)
    assert world.in_use == TWO


def test_a_slow_way_is_alive():
    world = World(ONE, wires={ONE: Wire(rtt=2500 * MS)})
    world.ready(ONE)
    world.busy()
    world.run(60 * S)
    assert world.way(ONE).alive
    assert world.way(ONE).rtt_ns == 2500 * MS
    assert world.way(ONE).loss < 0.3


def test_a_choice_outlives_its_session():
    world = World(ONE, TWO, wires={ONE: Wire(rtt=40 * MS)})
    world.ready(ONE)
    world.busy()
    world.run(20 * S)
    world.paths.ready(PEER, 0x1001, ONE, world.now)  # the peer began, by its own choice
    world.drain()
    assert world.used[-1] == TWO
    world.paths.lost(PEER, 0x1001)
    assert world.paths.next_timer() is None


def test_packets_from_elsewhere():
    world = World(ONE, TWO)
    world.ready(ONE)
    world.run(2 * S)
    assert not world.paths.follows(PEER, TWO), "another way of a peer whose choice is its own"
    assert world.paths.follows(PEER, OTHER), "it moved"
    world.ready(OTHER)
    assert world.in_use == OTHER
    alone = World(ONE)
    alone.ready(ONE)
    alone.run(2 * S)
    assert alone.paths.follows(PEER, TWO)
    alone.ready(TWO)
    assert [way.path for way in alone.paths.status(PEER)] == [TWO]
    assert alone.used == [], "not pinned: C follows by itself"


def test_a_quiet_way_is_probed_seldom():
    world = World(ONE)
    world.ready(ONE)
    world.run(10 * S)
    before = len(world.probes)
    world.run(150 * S)
    assert len(world.probes) - before <= 16
    world.busy()
    world.run(10 * S)
    assert len(world.probes) - before >= 20


@pytest.mark.parametrize("mtu", [CEILING, 1400])
def test_a_peer_learns_where_we_are_while_it_is_quiet(mtu):
    """By the way in use, whatever the search for its MTU is about; traffic tells that by itself."""
    world = World(ONE, TWO, wires={ONE: Wire(mtu=mtu), TWO: Wire(rtt=40 * MS)})
    world.ready(ONE)
    world.run(10 * S)
    world.still_here.clear()
    world.run(150 * S)
    assert len(world.still_here) == 10
    world.busy()
    world.run(60 * S)
    assert len(world.still_here) == 10


def test_a_family_that_the_socket_lacks_is_a_dead_way():
    world = World(ONE, TWO)
    world.ready(ONE)
    world.paths.events()
    for _ in range(20):
        world.now += 1 * S
        world.paths.poll(world.now)
        for event in world.paths.events():
            if isinstance(event, SendProbe) and event.path == TWO:
                world.paths.unsent(event.probe, too_long=False, now=world.now)
            elif isinstance(event, SendProbe):
                world.paths.answered(PEER, event.probe, world.now + MS, world.now)
    assert not world.way(TWO).alive
    assert world.way(ONE).alive


def test_configurations_change():
    world = World(ONE)
    world.ready(ONE)
    world.paths.configure(PEER, (ONE, TWO), world.now)
    world.run(3 * S)
    assert world.way(TWO).alive
    world.paths.configure(PEER, (ONE,), world.now)
    assert [way.path for way in world.paths.status(PEER)] == [ONE]
    world.paths.remove(PEER)
    assert world.paths.status(PEER) == []
    assert world.paths.next_timer() is None


def test_answers_of_others_and_to_nothing_count_for_nothing():
    world = World(ONE)
    world.wires[ONE].dead = True
    world.ready(ONE)
    for probe in range(10):
        world.paths.answered(PEER + 1, probe, world.now, world.now)
    world.paths.answered(PEER, 999, world.now, world.now)
    assert world.way(ONE).rtt_ns is None
    world.run(40 * S)
    assert not world.way(ONE).alive
    world.paths.answered(PEER, 0, world.now, world.now)
    assert world.way(ONE).rtt_ns is None, "too late to tell anything"
