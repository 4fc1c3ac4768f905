"""mesh/lanes.py against ways that are made up: lanes whose ports pass or do not, loss, moves."""

import heapq
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from random import Random

import pytest

from mesh.address import Address
from mesh.lanes import AGAIN_NS, LANES_MAX, Answer, Lanes, ProbeLane, UseLanes
from mesh.paths import BUSY_INTERVAL_NS, MS, TRIES, S, StillHere
from mesh.relay import Through

ONE, TWO = (Address(IPv4Address(f"192.0.2.{n}"), 7400) for n in (1, 2))
PEER = 3
SESSION = 0x1000
ALL = 0b1111


@dataclass
class World:
    """Four lanes, all busy.  blocked: lanes whose own ports do not pass.  at: where the data plane
    sends to, used: which lanes then do so by their own ports."""

    rtt: int = 10 * MS
    mtu: int = 9000
    loss: float = 0.0
    blocked: set[int] = field(default_factory=set)
    now: int = 1 * S
    seed: int = 1

    def __post_init__(self):
        self.rng = Random(self.seed)
        self.lanes = Lanes(4)
        self.coming = []
        self.probes = []
        self.shown = []
        self.used = 0
        self.at = ONE
        self.busy = ALL

    def ready(self, path=ONE, index=SESSION):
        self.used, self.at = 0, path
        self.lanes.moved(PEER, path, self.now)
        self.lanes.ready(PEER, index, path, self.now)
        self.lanes.resize(PEER, 1400, self.now)
        self.lanes.busy({PEER: self.busy}, self.now)
        self.drain()
        return self

    def move(self, path):
        self.used, self.at = 0, path
        self.lanes.moved(PEER, path, self.now)
        self.drain()

    def drain(self):
        for event in self.lanes.events():
            match event:
                case ProbeLane():
                    self.send(event)
                case UseLanes():
                    if event.path == self.at:
                        self.used = event.lanes
                case StillHere():
                    self.shown.append(self.now)

    def send(self, event):
        self.probes.append((self.now, event.lane, event.ip_bytes))
        passes = event.lane not in self.blocked and event.ip_bytes <= self.mtu
        if passes and self.rng.random() >= self.loss:
            when = self.now + self.rtt
            answer = Answer(event.lane, event.probe, event.path, when)
            heapq.heappush(self.coming, (when, event.probe, answer))

    def run(self, duration):
        end = self.now + duration
        second = self.now + S
        while True:
            moments = [self.lanes.next_timer(), second, *[when for when, *_ in self.coming[:1]]]
            then = min(moment for moment in moments if moment is not None)
            if then > end:
                break
            self.now = max(self.now, then)
            if then == second:
                self.lanes.busy({PEER: self.busy}, self.now)
                second += S
            while self.coming and self.coming[0][0] <= self.now:
                self.lanes.answered(PEER, heapq.heappop(self.coming)[2], self.now)
            self.lanes.poll(self.now)
            self.drain()
        self.now = end


def test_each_lane_is_proven_by_its_own_port():
    world = World(blocked={2}).ready()
    assert world.used == 0
    world.run(world.rtt)
    assert world.used == 0b1010
    assert {(lane, size) for _, lane, size in world.probes} == {(1, 1400), (2, 1400), (3, 1400)}


def test_lane_0_and_the_control_lane_need_no_proof():
    world = World()
    world.busy = 1 | 1 << 31
    world.ready().run(10 * S)
    assert world.probes == []


def test_a_node_with_one_lane_has_nothing_to_prove():
    lanes = Lanes(1)
    lanes.ready(PEER, SESSION, ONE, 0)
    lanes.busy({PEER: ALL}, 0)
    assert lanes.events() == []
    assert lanes.next_timer() is None


def test_a_blocked_port_is_tried_again_after_a_minute_only():
    world = World(blocked={1}).ready()
    world.run(10 * S)
    assert Counter(lane for _, lane, _ in world.probes)[1] == TRIES
    world.run(AGAIN_NS)
    assert Counter(lane for _, lane, _ in world.probes)[1] == 2 * TRIES
    world.blocked.clear()
    world.run(AGAIN_NS + 10 * S)
    assert world.used == 0b1110


def test_a_port_that_is_blocked_under_way_is_given_up():
    world = World().ready()
    world.run(5 * S)
    assert world.used == 0b1110
    world.blocked.add(2)
    world.run(BUSY_INTERVAL_NS + TRIES * 200 * MS + world.rtt)
    assert world.used == 0b1010


@pytest.mark.parametrize("seed", range(20))
def test_loss_alone_gives_up_few(seed):
    world = World(loss=0.02, seed=seed).ready()
    world.run(300 * S)
    assert len(world.probes) < 4 * 300
    assert world.used.bit_count() >= 2


def test_a_peer_that_moves_is_proven_anew():
    world = World().ready()
    world.run(5 * S)
    world.blocked.add(1)
    world.move(TWO)
    assert world.used == 0
    world.run(world.rtt)
    assert world.used == 0b1100


def test_a_path_that_is_left_is_not_used_unasked():
    """The node knew of the new path before the data plane, which stays for a while."""
    world = World().ready()
    world.run(5 * S)
    world.lanes.moved(PEER, TWO, world.now)
    world.drain()
    assert world.at == ONE
    assert world.used == 0


def test_what_was_proven_stays_over_a_change_of_keys():
    world = World().ready()
    world.run(5 * S)
    world.ready(index=0x2000)
    assert world.used == 0b1110
    world.lanes.lost(PEER, SESSION)
    world.drain()
    assert world.used == 0b1110


def test_without_a_session_there_is_nothing_to_do():
    world = World().ready()
    world.run(5 * S)
    world.lanes.lost(PEER, SESSION)
    assert world.lanes.next_timer() is None
    world.ready(index=0x2000)
    assert world.used == 0
    world.run(world.rtt)
    assert world.used == 0b1110


def test_lanes_that_send_no_more_are_asked_no_more():
    world = World().ready()
    world.run(5 * S)
    world.busy = 1 << 3
    world.run(2 * S)
    assert world.used == 1 << 3
    world.busy = 0
    world.run(2 * S)
    assert world.used == 0
    assert world.lanes.next_timer() is None


def test_a_peer_behind_another_has_no_ports_to_prove():
    world = World().ready(path=Through(7))
    world.run(5 * S)
    assert world.probes == []
    world.ready(path=ONE)
    world.run(5 * S)
    assert world.used == 0b1110
    world.move(Through(7))
    assert world.used == 0
    assert world.lanes.next_timer() is None


def test_a_larger_packet_is_asked_for_before_the_lane_goes_on():
    world = World().ready()
    world.run(5 * S)
    world.mtu = 1300
    world.run(world.rtt)
    world.lanes.resize(PEER, 1300, world.now)  # so the search for the way found
    world.run(5 * S)
    assert world.used == 0b1110
    world.lanes.resize(PEER, 1350, world.now)
    world.run(5 * S)
    assert world.used == 0


@pytest.mark.parametrize(
    "change",
    [
        {"source": TWO},
        {"lane": 2},
        {"lane": 0},
        {"lane": 9},
        {"probe": 77},
    ],
)
def test_answers_that_do_not_fit_prove_nothing(change):
    world = World().ready()
    world.run(0)
    when, _, answer = world.coming[0]
    wrong = {"lane": answer.lane, "probe": answer.probe, "source": answer.source} | change
    world.lanes.answered(PEER, Answer(**wrong, received=when), world.now)
    world.lanes.answered(PEER + 1, answer, world.now)
    world.drain()
    assert world.used == 0


def test_where_we_are_is_shown_each_second_while_own_ports_are_used():
    world = World().ready()
    world.run(20 * S)
    assert 18 <= len(world.shown) <= 21
    world.blocked = {1, 2, 3}
    world.run(3 * S)
    before = len(world.shown)
    world.run(10 * S)
    assert len(world.shown) == before


def test_late_answers_are_no_harm():
    world = World(rtt=1500 * MS).ready()
    world.run(10 * S)
    assert world.used == 0


def test_probes_are_bounded_however_many_peers_are_busy():
    lanes = Lanes(4)
    peers = range(LANES_MAX)
    for peer in peers:
        lanes.ready(peer, peer, ONE, 0)
    lanes.busy(dict.fromkeys(peers, ALL), 0)
    lanes.poll(0)
    assert len(lanes.events()) == LANES_MAX
    for peer in range(LANES_MAX // 2):
        lanes.remove(peer)
    lanes.busy(dict.fromkeys(peers, ALL), 1)
    lanes.poll(1)
    assert 0 < len(lanes.events()) <= LANES_MAX


@pytest.mark.parametrize("seed", range(50))
def test_random_lives(seed):
    """Whatever happens, in the end each lane that passes is used, and no other."""
    rng = Random(seed)
    world = World(seed=seed)
    world.ready()
    index = SESSION
    for _ in range(60):
        match rng.randrange(7):
            case 0:
                world.move(rng.choice((ONE, TWO)))
            case 1:
                index += 1
                world.ready(world.at, index)
            case 2:
                world.blocked = {n for n in (1, 2, 3) if rng.random() < 0.4}
            case 3:
                world.busy = rng.randrange(16)
            case 4:
                world.loss = rng.choice((0, 0, 0.5))
            case 5:
                world.rtt = rng.choice((1, 10, 300)) * MS
            case 6:
                world.lanes.resize(PEER, rng.choice((1200, 1400)), world.now)
        world.drain()
        world.run(rng.randrange(20 * S))
    world.loss, world.rtt, world.busy = 0, 10 * MS, ALL
    world.run(AGAIN_NS + 10 * S)
    assert world.used == sum(1 << n for n in (1, 2, 3) if n not in world.blocked)
