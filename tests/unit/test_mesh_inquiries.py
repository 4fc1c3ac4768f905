"""mesh/inquiries.py: pings and traces between services, through the data plane."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from mesh.address import Address
from mesh.config import MeshConfig, PeerConfig
from mesh.errors import ConfigError
from mesh.identity import Identity
from mesh.inquiries import INQUIRIES_MAX, Inquiries
from mesh.inquiry import Hop, Ponged, Result, WayEnd
from mesh.keyfile import write_private_key
from mesh.ping import INTERVAL_MIN_NS
from mesh.relay import Through
from tests.unit.test_mesh_service import Host, Pair

LOOPBACK = ip_address("127.0.0.1")


class Asker:
    """Somebody who wants to know, and what was told."""

    def __init__(self, pair: Pair, host: Host) -> None:
        self.pair = pair
        self.host = host
        self.told: list[Result | None] = []

    def ping(self, key: bytes, count: int | None = 1, ip_bytes: int = 64) -> None:
        def begin(inquiries: Inquiries) -> int:
            return inquiries.ping(
                key,
                self.told.append,
                count=count,
                interval_ns=INTERVAL_MIN_NS,
                ip_bytes=ip_bytes,
            )

        self.stop = self.host.service.inquire(begin)

    def trace(self, key: bytes) -> None:
        self.stop = self.host.service.inquire(lambda i: i.trace(key, self.told.append))

    def all_told(self) -> list[Result]:
        self.pair.until(lambda: None in self.told)
        *results, end = self.told
        assert end is None
        return [result for result in results if result is not None]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.close()


class Row:
    """a - b - c, where a has c behind b.  b_knows_c: or it is no peer of b's."""

    def __init__(self, pair: Pair, folder: Path, *, b_knows_c: bool = True) -> None:
        third = Identity(bytes([3]) * 32)
        write_private_key(str(folder / "3.key"), bytes([3]) * 32)
        self.keys = [i.public_key for i in (*pair.identities, third)]
        self.files = [*pair.files, str(folder / "3.key")]
        self.pair = pair
        self.c = self.host(2, self.peer(0), self.peer(1))
        others = [self.peer(2, self.c)] if b_knows_c else []
        self.b = self.host(1, self.peer(0), *others, workers=2)
        self.a = self.host(0, self.peer(1, self.b), self.peer(2, via=1), workers=2)

    def peer(self, number: int, at: Host | None = None, via: int | None = None) -> PeerConfig:
        endpoints = (Address(LOOPBACK, at.service.listen_port),) if at else ()
        network = ip_network(f"10.5.0.{number + 1}/32")
        behind = None if via is None else self.keys[via]
        return PeerConfig(self.keys[number], endpoints, (network,), via=behind)

    def host(self, number: int, *peers: PeerConfig, workers: int = 1) -> Host:
        config = MeshConfig(Address(LOOPBACK, 0), self.files[number], peers, 1400)
        return self.pair.add(config, workers)

    def connect(self) -> None:
        self.pair.until(lambda: all(h.connected for h in (self.a, self.b, self.c)))


def test_ping_makes_the_session_that_it_lacks(pair: Pair) -> None:
    """Asked at once, before the handshake can have ended."""
    a, b = pair.start()
    asker = Asker(pair, a)
    asker.ping(pair.identities[1].public_key, count=3, ip_bytes=1400)
    results = asker.all_told()
    where = Address(LOOPBACK, b.service.listen_port)
    assert [(r.number, r.ip_bytes, r.path, r.lost) for r in results if isinstance(r, Ponged)] == [
        (number, 1400, where, None) for number in (1, 2, 3)
    ]


def test_ping_and_trace_through_another_node(pair: Pair, tmp_path: Path) -> None:
    row = Row(pair, tmp_path)
    row.connect()
    asker = Asker(pair, row.a)
    asker.ping(row.keys[2])
    (pong,) = asker.all_told()
    assert isinstance(pong, Ponged)
    assert pong.rtt_ns is not None
    assert pong.path == Through(row.a.service.peer_ids[row.keys[1]])

    asker = Asker(pair, row.a)
    asker.trace(row.keys[2])
    first, second, end = asker.all_told()
    assert isinstance(first, Hop)
    assert isinstance(second, Hop)
    assert (first.public_key, first.proved) == (row.keys[1], True)
    assert (second.public_key, second.proved) == (row.keys[2], False)
    assert end == WayEnd("reached", row.keys[2])


def test_a_destination_that_a_node_does_not_know(pair: Pair, tmp_path: Path) -> None:
    row = Row(pair, tmp_path, b_knows_c=False)
    asker = Asker(pair, row.a)
    asker.trace(row.keys[2])  # before there is any session
    hop, end = asker.all_told()
    assert isinstance(hop, Hop)
    assert (hop.number, hop.public_key, hop.proved) == (1, row.keys[1], True)
    assert end == WayEnd("does not know the destination, or a way there", row.keys[1])


def test_a_stranger_cannot_be_asked(pair: Pair) -> None:
    a, _ = pair.start()
    asker = Asker(pair, a)
    with pytest.raises(ConfigError, match="no such peer"):
        asker.ping(bytes(32))


def test_stopped_and_too_many(pair: Pair) -> None:
    a, b = pair.start()
    pair.until(lambda: a.connected and b.connected)
    key = pair.identities[1].public_key
    askers = [Asker(pair, a) for _ in range(INQUIRIES_MAX)]
    for asker in askers:
        asker.ping(key, count=None)
    extra = Asker(pair, a)
    with pytest.raises(ConfigError, match="under way already"):
        extra.trace(key)
    pair.until(lambda: all(len(asker.told) > 1 for asker in askers))
    first = askers[0]
    first.stop()
    told = len(first.told)
    extra.ping(key, count=3)
    extra.all_told()
    assert len(first.told) == told
    first.stop()  # once more: nothing


def test_a_peer_that_is_removed(pair: Pair) -> None:
    a, b = pair.start()
    pair.until(lambda: a.connected and b.connected)
    asker = Asker(pair, a)
    asker.ping(pair.identities[1].public_key, count=None)
    pair.until(lambda: bool(asker.told))
    config = MeshConfig(Address(LOOPBACK, 0), pair.files[0], (), 1400)
    a.service.apply(config)
    assert asker.told[-1] is None


def test_the_end_of_the_mesh(pair: Pair) -> None:
    a, _ = pair.start()
    asker = Asker(pair, a)
    asker.trace(pair.identities[1].public_key)
    a.close()
    assert asker.told[-1] is None
    pair.hosts.remove(a)


def test_a_ping_is_answered_by_its_peer_only(pair: Pair, tmp_path: Path) -> None:
    row = Row(pair, tmp_path)
    row.connect()
    asker = Asker(pair, row.a)
    asker.ping(row.keys[1], count=None)
    pair.until(lambda: bool(asker.told))
    asker.told.clear()
    inquiries = row.a.service._probing().inquiries
    c_is = row.a.service.peer_ids[row.keys[2]]
    (running,) = inquiries._running.values()
    waiting = running.inquiry._waiting
    pair.until(lambda: bool(waiting))
    for number in list(waiting):
        inquiries.probe_answered(c_is, number, 64, 0)
    assert asker.told == []
    assert waiting
