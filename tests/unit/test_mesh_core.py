"""mesh/core.py and the C behind it: frames between two switches through loopback sockets.

What happens to single records on the wire is tests/c/mesh_*.c's; large frames of all kinds are
test_mesh_offloads.py's.
"""

import errno
import json
import struct
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from _dataplane import ffi, lib
from nacl.bindings import crypto_shorthash_siphash24
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Packet, Raw

from mesh.address import Address
from mesh.core import (
    CONTROL_LANE,
    KEY_BYTES,
    RELAY_KEY_BYTES,
    MeshCore,
    MeshCoreError,
    Punt,
    PuntKind,
    steer,
)
from mesh.inquiry import TraceEnd
from mesh.relay import HOPS, Through
from mesh.wire import TYPE_RECORD, TYPE_RELAY, TYPE_TRACE, Cipher
from tests.fakes.meshsides import (
    DEADLINE_S,
    IPS,
    KEYS,
    MACS,
    MTU,
    PEER,
    Side,
    address_of,
    connect,
    joined,
    received,
    udp_socket,
    until,
)
from tests.fakes.switchbox import NEEDS_CSUM, ROUTER_MAC, vnet_header

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "mesh_records.json").read_text())
GSO_TCP4 = 1
RELAY_KEYS = {"relay_send_key": bytes(16), "relay_receive_key": bytes(16)}


@pytest.fixture
def sides() -> Iterator[tuple[Side, Side]]:
    with joined("127.0.0.1", "127.0.0.1") as pair:
        yield pair


def datagram(number: int, payload: bytes) -> Packet:
    return IP(src=IPS[number], dst=IPS[1 - number]) / UDP(sport=7, dport=9) / Raw(payload)


def test_frames_pass_both_ways(sides):
    connect(sides)
    sides[0].send(datagram(0, b"there"))
    _, frame = received(sides, sides[1])
    assert (frame.src, frame.dst) == (ROUTER_MAC, MACS[1])
    assert bytes(frame[UDP].payload) == b"there"
    assert frame[IP].ttl == 64, "the mesh is one subnet"
    assert [p.kind for p in sides[1].punts()] == [PuntKind.SESSION_CONFIRMED]
    sides[1].send(datagram(1, b"and back"))
    _, frame = received(sides, sides[0])
    assert bytes(frame[UDP].payload) == b"and back"
    assert sides[0].drops == sides[1].drops == {}


@pytest.mark.parametrize(
    "hosts", [("::1", "::1"), ("::", "127.0.0.1"), ("127.0.0.1", "::")], ids=" to ".join
)
def test_sockets_of_either_family(hosts):
    with joined(*hosts) as sides:
        connect(sides)
        sides[0].send(datagram(0, b"there"))
        received(sides, sides[1])
        sides[1].send(datagram(1, b"and back"))
        received(sides, sides[0])
        assert sides[1].core.session_stats(0x1000).endpoint == sides[0].at
        assert [p.kind for p in sides[1].punts()] == [PuntKind.SESSION_CONFIRMED]


def test_an_endpoint_that_the_socket_cannot_reach_loses_the_packet(sides):
    connect(sides)
    sides[0].core.set_endpoint(0x1000, Address.parse("[::1]:9"))
    sides[0].send(datagram(0, b"nowhere"))
    assert sides[0].drops == {"send": 1}
    with pytest.raises(MeshCoreError):
        sides[0].core.send_keepalive(PEER)


def test_a_probe_is_answered_with_its_size(sides):
    connect(sides)
    sides[0].core.send_probe(0x1000, sides[1].at, 0xFFFFFFFE, 1200)
    replies: list[Punt] = []

    def look() -> bool:
        replies.extend(p for p in sides[0].punts() if p.kind == PuntKind.PROBE_REPLY)
        return bool(replies)

    until(sides, look)
    (reply,) = replies
    received_ns, number, ip_bytes = reply.probe_reply
    assert (reply.id, number, ip_bytes) == (0x1000, 0xFFFFFFFE, 1200)
    assert received_ns <= time.monotonic_ns()
    with pytest.raises(MeshCoreError) as error:
        sides[0].core.send_probe(0x1001, sides[1].at, 1, 1200)
    assert error.value.errno_ == errno.ENOENT


def test_a_large_frame_stays_large(sides):
    connect(sides)
    payload = bytes(i % 251 for i in range(20000))
    tcp = TCP(sport=1, dport=2, seq=5, flags="PA", chksum=0x1234)
    sides[0].send(datagram(0, b"resolve me"))
    received(sides, sides[1])
    offload = vnet_header(NEEDS_CSUM, GSO_TCP4, 1448, 34, 16)
    sides[0].send(IP(src=IPS[0], dst=IPS[1]) / tcp / Raw(payload), offload)
    header, frame = received(sides, sides[1])
    flags, gso_type, _, gso_size, csum_start, csum_offset, _ = struct.unpack("<BBHHHHH", header)
    assert (flags, gso_type, csum_start, csum_offset) == (NEEDS_CSUM, GSO_TCP4, 34, 16)
    assert gso_size == MTU - 40, "recut to what a record carries"
    assert bytes(frame[TCP].payload) == payload
    assert frame[TCP].flags == "PA"
    assert frame[IP].len == 20040


def test_nothing_is_sent_without_keys(sides):
    for _ in range(3):
        sides[0].send(datagram(0, b"early"))
    assert sides[0].drops == {"no_session": 3}
    (punt,) = sides[0].punts()
    assert (punt.kind, punt.id) == (PuntKind.NEED_SESSION, PEER)
    # A responder waits for the proof that the peer has the key.
    sides[0].install(sides[1], initiator=False)
    sides[0].send(datagram(0, b"early"))
    assert sides[0].drops == {"no_session": 4}
    sides[0].core.promote_session(0x1000)
    sides[0].send(datagram(0, b"now"))
    assert sides[0].core.session_stats(0x1000).tx_records == 1


def test_a_keepalive_confirms(sides):
    connect(sides)
    sides[0].core.send_keepalive(PEER)
    until(sides, lambda: sides[1].core.session_stats(0x1000).rx_records)
    stats = sides[1].core.session_stats(0x1000)
    assert (stats.confirmed, stats.current, stats.last_rx_packet_ns) == (True, True, 0)
    assert stats.last_rx_ns > 0
    assert stats.endpoint == sides[0].at
    sent = sides[0].core.session_stats(0x1000)
    assert (sent.tx_records, sent.tx_bytes, sent.last_tx_ns) == (1, 48, 0)
    assert sent.last_keepalive_ns > 0
    assert sides[1].device.receive_raw() == [], "nothing to deliver"


def test_the_endpoint_follows_the_peer(sides):
    connect(sides)
    sides[0].send(datagram(0, b"record"))
    received(sides, sides[1])
    with udp_socket() as elsewhere:
        sides[0].core.set_endpoint(0x1000, address_of(elsewhere))
        sides[0].core.send_keepalive(PEER)
        elsewhere.sendto(elsewhere.recv(2000), (str(sides[1].at.ip), sides[1].at.port))
        sides[1].punts()
        until(sides, lambda: sides[1].core.session_stats(0x1000).endpoint == address_of(elsewhere))
        (punt,) = sides[1].punts()
        assert (punt.kind, punt.id, punt.source) == (
            PuntKind.ENDPOINT, 0x1000, address_of(elsewhere),
        )  # fmt: skip


def test_removing_waits_for_the_workers_twice(sides):
    connect(sides)
    sides[0].core.remove_session(0x1000)
    assert sides[0].syncs == 2
    sides[0].send(datagram(0, b"late"))
    assert sides[0].drops == {"no_session": 1}
    sides[0].core.remove_peer(PEER)
    assert sides[0].syncs == 3
    sides[0].send(datagram(0, b"late"))
    assert sides[0].drops == {"no_session": 1, "no_route": 1}


def test_keys_that_were_handed_over_are_wiped(sides):
    keys = [bytearray(KEYS[0]), bytearray(KEYS[1])]
    at = sides[1].at
    install = partial(sides[0].core.install_session, initiator=True, endpoint=at, cipher=1)
    relay_keys = {"relay_send_key": bytearray(b"r" * 16), "relay_receive_key": bytearray(b"s" * 16)}
    install(PEER, 1, 1, *keys, **relay_keys)
    assert keys == [bytearray(KEY_BYTES)] * 2
    assert list(relay_keys.values()) == [bytearray(16)] * 2
    keys = [bytearray(KEYS[0]), bytearray(b"short")]
    with pytest.raises(MeshCoreError):
        install(PEER, 2, 2, *keys, **relay_keys)
    assert keys == [bytearray(KEY_BYTES), bytearray(5)]


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda s, _: s.core.create_peer(PEER, bytes(8)), errno.EEXIST),
        (lambda s, _: s.core.create_peer(65536, bytes(8)), errno.EINVAL),
        (lambda s, _: s.core.create_peer(4, bytes(7)), errno.EINVAL),
        (lambda s, _: s.core.remove_peer(4), errno.ENOENT),
        (lambda s, _: s.core.remove_session(1), errno.ENOENT),
        (lambda s, _: s.core.promote_session(1), errno.ENOENT),
        (lambda s, _: s.core.set_endpoint(1, s.at), errno.ENOENT),
        (lambda s, _: s.core.session_stats(1), errno.ENOENT),
        (lambda s, _: s.core.send_keepalive(PEER), errno.ENOKEY),
        (lambda s, _: s.core.send_keepalive(4), errno.ENOENT),
        (lambda s, _: s.core.add_lane(0, s.socket.fileno()), errno.EEXIST),
        (lambda s, _: s.core.add_lane(1, s.socket.fileno()), errno.EINVAL),
        (lambda s, _: s.core.set_lanes(2), errno.EBUSY),
        (lambda s, _: s.core.lane_rxq(5), errno.ENOENT),
        (lambda s, _: steer(s.socket.fileno(), 0), errno.EINVAL),
        (lambda s, o: [s.install(o, i, initiator=True) for i in (5, 5 + 65536)], errno.EEXIST),
        (lambda s, _: MeshCore(1, bytes(8), bytes(32), 100, s.sync), errno.EINVAL),
        (lambda s, _: MeshCore(1, bytes(9), bytes(32), MTU, s.sync), errno.EINVAL),
    ],
)
def test_misuse_is_refused(sides, call, reason):
    with pytest.raises(MeshCoreError) as error:
        call(*sides)
    assert error.value.errno_ == reason


def test_another_cipher_is_refused(sides):
    with pytest.raises(MeshCoreError, match="cannot install keys for peer 3"):
        sides[0].core.install_session(
            PEER, 1, 1, *KEYS, **RELAY_KEYS, initiator=True, endpoint=sides[1].at, cipher=3
        )


# ---- tests/golden/mesh_records.json


def golden_side(number: int, endpoint: Address, cipher: int) -> Side:
    """A side whose node id, and its peer's, are the vectors' destination."""
    node_id, key = bytes.fromhex(GOLDEN["node_id"]), bytes.fromhex(GOLDEN["key"])
    side = Side(number, node_id)
    side.core.create_peer(PEER, node_id)
    index = GOLDEN["index"]
    side.core.install_session(
        PEER, index, index, key, key, **RELAY_KEYS, initiator=True, endpoint=endpoint, cipher=cipher
    )
    return side


@pytest.mark.parametrize("vector", GOLDEN["vectors"], ids=lambda v: f"{v['name']} {v['cipher']}")
def test_golden_records_open(vector):
    with udp_socket() as wire:
        side = golden_side(0, address_of(wire), vector["cipher"])
        wire.sendto(bytes.fromhex(vector["record"]), (str(side.at.ip), side.at.port))
        until((side, side), lambda: side.core.session_stats(GOLDEN["index"]).rx_records)
        if packet := bytes.fromhex(vector["packet"]):
            _, frame = received((side, side), side)
            assert bytes(frame)[14:] == packet
        assert side.drops == {}
        side.close()


@pytest.mark.parametrize("cipher", list(Cipher))
def test_golden_records_are_what_is_sent(cipher):
    of_cipher = [vector for vector in GOLDEN["vectors"] if vector["cipher"] == cipher]
    vectors = {vector["name"]: vector for vector in of_cipher}
    with udp_socket() as wire:
        side = golden_side(1, address_of(wire), cipher)
        side.core.send_keepalive(PEER)
        assert wire.recv(2000).hex() == vectors["keepalive"]["record"]
        for name in ("packet", "longest packet"):
            side.send(Raw(bytes.fromhex(vectors[name]["packet"])))
            assert wire.recv(2000).hex() == vectors[name]["record"]
        side.close()


def test_the_control_lane_is_no_workers():
    assert CONTROL_LANE == lib.MAX_WORKERS - 1


def test_what_the_hop_tag_covers(sides):
    """By an independent SipHash: the relay header, and of the record its header and its tag."""
    connect(sides)
    behind, node_id = PEER + 1, bytes(range(8))
    core = sides[0].core
    core.create_peer(behind, node_id)
    core.install_session(
        *(behind, 0x1001, 0x1001, *KEYS),
        **RELAY_KEYS,
        initiator=True,
        endpoint=Through(PEER),
        cipher=1,
    )
    with udp_socket() as wire:
        wire.setblocking(True)
        wire.settimeout(DEADLINE_S)
        core.set_endpoint(0x1000, address_of(wire))
        core.send_keepalive(behind)
        core.send_probe(0x1001, Through(PEER), 1, 300)
        core.send_trace(behind, 3, 0x1122334455667788)
        messages = [wire.recv(2000) for _ in range(3)]
    key = KEYS[0][:RELAY_KEY_BYTES]
    for counter, data in zip((0, 1, 0), messages, strict=True):  # of lane 31, and of lane 0
        header, tag, message = data[:24], data[24:32], data[32:]
        assert header[0] == TYPE_RELAY
        assert header[8:] == counter.to_bytes(8, "little") + node_id
        record = message[0] == TYPE_RECORD
        covered = message[:24] + message[-16:] if record else message
        assert tag == crypto_shorthash_siphash24(header + covered, key)
    id_bytes = bytes.fromhex("8877665544332211")
    ask = bytes([TYPE_TRACE]) + bytes(7) + id_bytes + sides[0].node_id + bytes(32)
    assert messages[2][32:] == ask
    assert messages[2][1] == 3, "hops left"


def test_ends_of_traces_are_those_of_the_data_plane():
    elements = ffi.typeof("enum trace_end").elements.items()
    ends = {name.removeprefix("TRACE_"): number for number, name in elements}
    del ends["ASK"], ends["ENDS"]
    assert ends == {end.name: end.value for end in TraceEnd}
    assert lib.MESH_RELAY_HOPS == HOPS
