"""Peers behind others: configuration, handshakes by another way, neighbours that come and go."""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from random import Random

import pytest

from mesh.address import Address
from mesh.config import MeshConfig, PeerConfig
from mesh.errors import ConfigError
from mesh.events import PathChanged, PeerPlaced, SendThrough
from mesh.handshake import State
from mesh.identity import Identity, encode_key
from mesh.keyfile import write_private_key
from mesh.peer import RETRY_NS
from mesh.relay import MAX_IN_ROW, Through, wrong_via
from mesh.timers import Timers
from tests.fakes.mesh_ends import STRANGER, End, S
from tests.unit.test_mesh_service import Host, Pair

KEYS = [bytes([number]) * 32 for number in range(12)]
OWN, B, C, D = KEYS[:4]


# ---- what a configuration may ask for


def peers(vias: dict[bytes, bytes | None], *direct: bytes) -> dict[bytes, PeerConfig]:
    """direct: those that have an endpoint."""
    return {
        key: PeerConfig(key, (STRANGER,) if key in direct else (), via=via)
        for key, via in vias.items()
    }


@pytest.mark.parametrize(
    ("vias", "culprit", "says"),
    [
        ({B: OWN}, B, "this node itself"),
        ({B: None, C: C}, C, "the peer itself"),
        ({B: None, C: D}, C, "no peer has"),
        ({B: C, C: B}, B, "behind itself"),
        ({B: C, C: D, D: C}, C, "behind itself"),
        ({B: C, C: D, D: B}, B, "by way of 2 other"),
        (dict(zip(KEYS[1:10], [*KEYS[2:10], None], strict=True)), B, "more than 7"),
    ],
)
def test_wrong_vias(vias: dict[bytes, bytes | None], culprit: bytes, says: str) -> None:
    wrong = wrong_via(OWN, peers(vias))
    assert wrong is not None
    assert says in wrong.what
    assert wrong.public_key == culprit
    assert wrong.remedy


def test_right_vias() -> None:
    assert wrong_via(OWN, {}) is None
    assert wrong_via(OWN, peers({C: B, B: None, D: C})) is None
    row = KEYS[1 : MAX_IN_ROW + 2]
    assert wrong_via(OWN, peers(dict(zip(row, [*row[1:], None], strict=True)))) is None


def test_a_row_ends_at_who_has_endpoints() -> None:
    assert wrong_via(OWN, peers({B: C, C: B}, B, C)) is None, "each is the other's detour"
    long = dict(zip(KEYS[1:10], [*KEYS[2:10], None], strict=True))
    assert wrong_via(OWN, peers(long, KEYS[5])) is None
    wrong = wrong_via(OWN, peers({B: C, C: B}, B))
    assert wrong is not None, "the detour leads back"
    assert wrong.public_key == B


# ---- one node


class Three:
    """a, whose neighbour is b; c is behind b."""

    def __init__(self) -> None:
        self.rng = Random(1)
        self.a, self.b, self.c = (End(number, self.rng) for number in (1, 2, 3))
        self.now = 0
        self.a.start(self.configs())

    def configs(self, *, via: bool = True) -> list[PeerConfig]:
        behind = PeerConfig(
            self.c.identity.public_key, via=self.b.identity.public_key if via else None
        )
        return [behind, self.b.config(self.b.address)]

    def id_of(self, end: End) -> int:
        return self.a.node.peer_ids()[end.identity.public_key]

    def through(self) -> list[SendThrough]:
        return [event for event in self.a.events() if isinstance(event, SendThrough)]

    def state(self, end: End) -> State:
        peers = self.a.node.status(self.now)
        return next(p.state for p in peers if p.public_key == end.identity.public_key)

    def meet_b(self) -> None:
        """a's handshake with b."""
        self.b.start([self.a.config()], self.now)
        for data, to in self.a.out():
            assert to == self.b.address
            self.b.node.receive_datagram(data, self.a.address, self.now)
        ((answer, _),) = self.b.out()
        self.a.node.receive_datagram(answer, self.b.address, self.now)


@pytest.fixture
def three() -> Three:
    return Three()


def test_an_initiation_goes_by_the_neighbour_and_is_answered_there(three: Three) -> None:
    c_is, b_is = three.id_of(three.c), three.id_of(three.b)
    events = three.a.events()
    assert events.index(PeerPlaced(c_is, b_is)) < events.index(PathChanged(c_is, Through(b_is)))
    sent = [event for event in events if isinstance(event, SendThrough)]
    assert [(e.neighbour, e.node_id) for e in sent] == [(b_is, three.c.identity.node_id)]
    assert [to for _, to in three.a.out()] == [three.b.address]

    # c does not know where a is; it came by somebody whom c calls 7.
    three.c.start([three.a.config()])
    three.c.node.receive_datagram(sent[0].data, Through(7), 0)
    assert three.c.out() == []
    (answer,) = (e for e in three.c.events() if isinstance(e, SendThrough))
    assert (answer.neighbour, answer.node_id) == (7, three.a.identity.node_id)
    assert three.c.installed()[-1].endpoint == Through(7)
    three.a.node.receive_datagram(answer.data, Through(b_is), 0)
    assert three.state(three.c) is State.READY
    assert three.a.installed()[-1].endpoint == Through(b_is)


def test_endpoints_are_tried_before_the_neighbour(three: Three) -> None:
    behind, b = three.configs()
    three.a.start([replace(behind, endpoints=(three.c.address,)), b])
    assert [event for event in three.a.events() if isinstance(event, PathChanged)] == []
    first = three.a.out()
    assert [to for _, to in first] == [three.c.address, three.b.address]
    three.b.start([three.a.config()])
    three.b.node.receive_datagram(first[1][0], three.a.address, 0)
    ((answer, _),) = three.b.out()
    three.a.node.receive_datagram(answer, three.b.address, 0)
    assert three.state(three.b) is State.READY
    assert three.through() == [], "c may still answer"
    three.now = 2 * RETRY_NS
    three.a.node.poll(three.now)
    assert [event.neighbour for event in three.through()] == [three.id_of(three.b)]


def test_a_detour_comes_and_goes_beside_a_session(three: Three) -> None:
    """What was agreed on directly stays as it is."""
    behind, b = three.configs()
    direct = replace(behind, endpoints=(three.c.address,), via=None)
    three.a.start([direct, b])
    three.c.start([three.a.config()])
    for data, to in three.a.out():
        if to == three.c.address:
            three.c.node.receive_datagram(data, three.a.address, 0)
    ((answer, _),) = three.c.out()
    three.a.node.receive_datagram(answer, three.c.address, 0)
    assert three.state(three.c) is State.READY
    three.a.events()
    c_is, b_is = three.id_of(three.c), three.id_of(three.b)
    for via, neighbour in ((behind.via, b_is), (None, None)):
        three.a.node.apply([replace(direct, via=via), b], three.now)
        assert three.a.events() == [PeerPlaced(c_is, neighbour)]
        assert three.state(three.c) is State.READY


def test_a_detour_that_goes_is_not_used_any_more(three: Three) -> None:
    behind, b = three.configs()
    both = replace(behind, endpoints=(three.c.address,))
    three.a.start([both, b])
    three.c.start([three.a.config()])
    attempt = next(data for data, to in three.a.out() if to == three.c.address)
    three.c.node.receive_datagram(attempt, Through(7), 0)
    (answer,) = (e.data for e in three.c.events() if isinstance(e, SendThrough))
    three.a.node.receive_datagram(answer, Through(three.id_of(three.b)), 0)
    assert three.state(three.c) is State.READY
    three.a.out()
    three.a.node.apply([replace(both, via=None), b], three.now)
    assert [to for _, to in three.a.out()] == [three.c.address], "agrees on keys there"


def test_a_key_for_the_neighbour_is_used_at_once_for_those_behind_it(three: Three) -> None:
    (first,) = three.through()  # lost: there is no key for b yet
    three.now = 1 * S
    three.meet_b()
    (second,) = three.through()
    assert second.node_id == first.node_id
    assert second.data[8:40] != first.data[8:40], "the ephemeral key was used again"


def test_who_gave_up_begins_again_when_the_neighbour_is_back(three: Three) -> None:
    three.through()
    while three.state(three.c) is not State.IDLE:
        three.now += S
        three.a.node.poll(three.now)
        three.a.out()
        three.through()
    three.a.node.need_session(three.id_of(three.b), three.now)
    three.meet_b()
    assert len(three.through()) == 1
    assert three.state(three.c) is State.INITIATING


def test_another_way_by_a_new_configuration(three: Three) -> None:
    three.a.events()
    c_is = three.id_of(three.c)
    three.a.node.apply(three.configs(via=False), three.now)
    assert three.a.events() == [PeerPlaced(c_is, None)]
    three.now += 2 * RETRY_NS
    three.a.node.poll(three.now)
    assert three.through() == [], "nobody knows where c is"
    three.a.node.apply(three.configs(), three.now)
    assert PeerPlaced(c_is, three.id_of(three.b)) in three.a.events()


def test_a_neighbour_with_another_secret_is_another_peer(three: Three) -> None:
    three.a.events()
    old = three.id_of(three.b)
    fresh = [three.configs()[0], three.b.config(three.b.address, psk=bytes(range(32)))]
    three.a.node.apply(fresh, three.now)
    assert three.id_of(three.b) != old
    assert PeerPlaced(three.id_of(three.c), three.id_of(three.b)) in three.a.events()


def test_the_way_by_a_removed_peer_is_forgotten(three: Three) -> None:
    three.meet_b()
    (sent,) = three.through()[-1:]
    three.c.start([three.a.config()])
    three.c.node.receive_datagram(sent.data, Through(7), 0)
    answer = next(e for e in three.c.events() if isinstance(e, SendThrough))
    three.a.node.receive_datagram(answer.data, Through(three.id_of(three.b)), 0)
    three.a.node.apply(three.configs(via=False)[:1], three.now)
    (status,) = three.a.node.status(three.now)
    assert status.endpoint is None


@pytest.mark.parametrize("wrong", ["stranger", "itself"])
def test_a_wrong_via_changes_nothing(three: Three, wrong: str) -> None:
    before = three.a.node.peer_ids()
    via = KEYS[9] if wrong == "stranger" else three.c.identity.public_key
    with pytest.raises(ConfigError, match="via of peer"):
        three.a.node.apply([PeerConfig(three.c.identity.public_key, via=via)], three.now)
    assert three.a.node.peer_ids() == before


def test_timers() -> None:
    timers = Timers()
    timers.set(1, 50)
    timers.set(2, 30)
    timers.set(2, 40)
    assert timers.next() == 40
    assert timers.take(39) is None
    assert timers.take(60) == 2
    timers.set(1, None)
    assert (timers.next(), timers.take(60)) == (None, None)


# ---- services, with the data plane


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.close()


def test_services_in_a_row(pair: Pair, tmp_path: Path) -> None:
    """a - b - c: a begins with both, c learns the way from a."""
    third = Identity(bytes([3]) * 32)
    write_private_key(str(tmp_path / "3.key"), bytes([3]) * 32)
    identities, files = [*pair.identities, third], [*pair.files, str(tmp_path / "3.key")]
    loopback = ip_address("127.0.0.1")

    def host(number: int, *peers: PeerConfig, workers: int) -> Host:
        return pair.add(MeshConfig(Address(loopback, 0), files[number], peers, 1400), workers)

    def peer(number: int, endpoint: Host | None = None, via: int | None = None) -> PeerConfig:
        at = (Address(loopback, endpoint.service.listen_port),) if endpoint else ()
        return PeerConfig(
            identities[number].public_key,
            at,
            (ip_network(f"10.5.0.{number + 1}/32"),),
            via=None if via is None else identities[via].public_key,
        )

    c = host(2, peer(0), peer(1), workers=2)
    b = host(1, peer(0), peer(2, c), workers=1)
    a = host(0, peer(1, b), peer(2, via=1), workers=2)
    pair.until(lambda: all(h.connected for h in (a, b, c)))
    (to_c,) = (p for p in a.service.status() if p["addresses"] == ["10.5.0.3/32"])
    names = [encode_key(identity.public_key) for identity in identities]
    assert (to_c["endpoint"], to_c["via"]) == (None, names[1])
    (to_a,) = (p for p in c.service.status() if p["addresses"] == ["10.5.0.1/32"])
    assert to_a["via"] == names[1]
    relayed = sum(int(str(p["relayed_bytes"])) for p in b.service.status())
    assert relayed >= 152 + 96 + 48 + 3 * 32, "initiation, answer, keepalive"
