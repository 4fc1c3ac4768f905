"""Every kind of sender to every kind of receiver: bytes as sent, checksums right, large if it may.

The kinds grow: nothing, checksums, TSO over IPv4, over IPv6, USO.  Each sends TCP and UDP in the
largest frames that it has offloads for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product

import pytest

from tests.fakes.frontend import BASIC, GUEST_USO, MERGEABLE, FrontEnd
from tests.fakes.offloads import ACK, CWR, DATA_VALID, FIN, PSH, TCP, UDP, Flow, Received, receive
from tests.fakes.switchbox import BoxPort, SwitchBox, vnet_header
from tests.fakes.vhostbox import A, B, VhostBox, mac, pair
from vhost.messages import OFFERED_FEATURES, OFFLOADS, U64, Feature, Request

F = Feature
MACS = mac(B) + mac(A)
MSS, DATAGRAM = 1360, 1200
STREAM = bytes((i * 31 + i // 256) & 0xFF for i in range(8000))
DATAGRAMS = [STREAM[i : i + DATAGRAM] for i in range(0, 7 * DATAGRAM - 1000, DATAGRAM)]
SEQ = 2**32 - 8000  # its last byte is the last number: nothing wraps within a large frame
IDENT = 65535  # which does wrap


@dataclass(frozen=True)
class Kind:
    """What a guest negotiated, as the sender and as the receiver it is."""

    host: Feature
    guest: Feature
    large: frozenset[tuple[int, int]] = frozenset()  # (IP version, protocol) that may be large


NOTHING = Kind(F(0), F(0))
CSUM = Kind(F.CSUM, F.GUEST_CSUM)
TSO4 = Kind(
    CSUM.host | F.HOST_TSO4 | F.HOST_ECN,
    CSUM.guest | F.GUEST_TSO4 | F.GUEST_ECN,
    frozenset({(4, TCP)}),
)
TSO6 = Kind(TSO4.host | F.HOST_TSO6, TSO4.guest | F.GUEST_TSO6, TSO4.large | {(6, TCP)})
USO = Kind(
    TSO6.host | F.HOST_USO,
    TSO6.guest | GUEST_USO,
    TSO6.large | {(4, UDP), (6, UDP)},
)
KINDS = {"nothing": NOTHING, "csum": CSUM, "tso4": TSO4, "tso6": TSO6, "uso": USO}

# Receive buffers: features, bytes of each.
BUFFERS = {
    "mergeable": (MERGEABLE, 1526),
    "big": (BASIC, 65562),  # what a driver with TSO offers: virtio 1.2, 5.1.6.3.1
    "small": (BASIC, 1526),
}
ENOUGH = 8  # of any of them for one STREAM or DATAGRAMS

RINGS = {
    "split": F(0),
    "split_in_order": F.IN_ORDER,
    "packed": F.RING_PACKED,
    "packed_in_order": F.RING_PACKED | F.IN_ORDER,
}


def send(front: FrontEnd, kind: Kind, flow: Flow) -> int:
    """STREAM or DATAGRAMS; returns how many large frames that took."""

    def give(frame: bytes, header: bytes) -> None:
        if kind.host & F.CSUM:
            front.transmit(frame, header + bytes(2))
        else:
            front.transmit(flow.finished(frame))

    large = (flow.version, flow.protocol) in kind.large
    if flow.protocol == UDP:
        whole = [b"".join(DATAGRAMS)] if large else DATAGRAMS
        for number, payload in enumerate(whole):
            frame = flow.frame(payload, ident=(IDENT + number) & 0xFFFF)
            give(frame, flow.header(DATAGRAM if large else 0))
        return int(large)
    size = len(STREAM) if large else MSS
    for number, at in enumerate(range(0, len(STREAM), size)):
        payload = STREAM[at : at + size]
        flags = ACK | (0 if at else CWR) | (PSH | FIN if at + size >= len(STREAM) else 0)
        frame = flow.frame(payload, seq=SEQ + at, flags=flags, ident=(IDENT + number) & 0xFFFF)
        give(frame, flow.header(MSS if large else 0, ecn=large))
    return int(large)


def check(flow: Flow, got: Received) -> None:
    """All payload, and what headers of single segments must say."""
    if flow.protocol == UDP:
        assert got.datagrams == DATAGRAMS
    else:
        assert got.stream == STREAM
        assert got.tcp_flags[0] & CWR
        assert not any(flags & CWR for flags in got.tcp_flags[1:])
        assert not any(flags & (PSH | FIN) for flags in got.tcp_flags[:-1])
        assert got.tcp_flags[-1] & (PSH | FIN) == PSH | FIN
        assert got.ecn == got.large
    assert got.idents == [
        (IDENT + i) & 0xFFFF for i in range(len(got.idents) if flow.version == 4 else 0)
    ]


@pytest.mark.parametrize("rings", RINGS)
@pytest.mark.parametrize("buffers", BUFFERS)
@pytest.mark.parametrize("receiver", KINDS)
@pytest.mark.parametrize("sender", KINDS)
def test_matrix(sender: str, receiver: str, buffers: str, rings: str) -> None:
    """Both protocols over both versions of IP, with and without a tag."""
    features, size = BUFFERS[buffers]
    kind, to = KINDS[sender], KINDS[receiver]
    with VhostBox() as box:
        a, b = pair(box, MERGEABLE | RINGS[rings] | kind.host, features | RINGS[rings] | to.guest)
        passed = 0
        for version, protocol, vlan in product((4, 6), (TCP, UDP), (False, True)):
            flow = Flow(MACS, version, protocol, vlan)
            b.post(ENOUGH, size)
            sent = send(a, kind, flow)
            box.settle()
            got = receive(flow, SEQ, b.received())
            check(flow, got)
            takes = (version, protocol) in to.large and buffers != "small"
            assert got.large == (sent if takes else 0)
            passed += got.large
            if not to.guest & F.GUEST_CSUM:
                assert got.needs_csum == 0
            a.ring(1).reap()
        assert a.ring(1).chains == {}
        assert box.count(1, "tx_gso_packets") == passed
        assert box.drops(0) == box.drops(1) == {}


@pytest.mark.parametrize("version", [4, 6], ids=["v4", "v6"])
@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
def test_each_feature_is_for_its_own_kind_of_frame(protocol: int, version: int) -> None:
    """A receiver with all features but the one that the frame asks for."""
    missing = {
        (4, TCP): F.GUEST_TSO4,
        (6, TCP): F.GUEST_TSO6,
        (4, UDP): F.GUEST_USO4,
        (6, UDP): F.GUEST_USO6,
    }[version, protocol]
    with VhostBox() as box:
        a, b = pair(box, MERGEABLE | USO.host, (MERGEABLE | USO.guest) & ~missing)
        flow = Flow(MACS, version, protocol)
        b.post(20)
        assert send(a, USO, flow) == 1
        box.settle()
        got = receive(flow, SEQ, b.received())
        check(flow, got)
        assert got.large == box.count(1, "tx_gso_packets") == 0


def test_a_large_frame_with_congestion_for_a_receiver_without_ecn() -> None:
    """Its stack would set CWR on every segment, so it gets them one by one."""
    with VhostBox() as box:
        a, b = pair(box, MERGEABLE | USO.host, (MERGEABLE | USO.guest) & ~F.GUEST_ECN)
        flow = Flow(MACS, 4, TCP)
        b.post(20)
        send(a, USO, flow)
        box.settle()
        got = receive(flow, SEQ, b.received())
        check(flow, got)
        assert got.large == box.count(1, "tx_gso_packets") == 0
        b.post(20)
        a.transmit(flow.frame(STREAM, seq=SEQ), flow.header(MSS) + bytes(2))
        box.settle()
        assert receive(flow, SEQ, b.received()).large == 1


def test_offloads_without_guest_csum_are_no_offloads() -> None:
    """A driver must not negotiate them so (5.1.3.1); one that does gets frames that are right."""
    with VhostBox() as box:
        a, b = pair(box, MERGEABLE | USO.host, (MERGEABLE | USO.guest) & ~F.GUEST_CSUM)
        for protocol in (TCP, UDP):
            flow = Flow(MACS, 6, protocol)
            b.post(20)
            send(a, USO, flow)
            box.settle()
            got = receive(flow, SEQ, b.received())
            check(flow, got)
            assert got.large == got.needs_csum == 0


@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
def test_a_ring_that_cannot_hold_the_whole_gets_pieces(protocol: int) -> None:
    """Four mergeable buffers, all posted: the frame is longer than they are together."""
    with VhostBox() as box:
        a, b = pair(box, MERGEABLE | USO.host, MERGEABLE | USO.guest, ring_size=4)
        flow = Flow(MACS, 4, protocol)
        b.post(4, 800)
        a.transmit(flow.frame(STREAM[:3200], seq=SEQ), flow.header(700) + bytes(2))
        box.settle()
        arrived = b.received()
        assert len(arrived) == 4
        b.post(4, 800)
        box.settle()
        arrived += b.received()
        got = receive(flow, SEQ, arrived)
        assert got.large == 0
        assert got.stream + b"".join(got.datagrams) == STREAM[:3200]
        assert got.idents == list(range(5))
        assert box.drops(1) == {}
        assert len(a.rings[1].reap()) == 1


def test_pieces_that_do_not_fit_either_are_oversize() -> None:
    with VhostBox() as box:
        a, b = pair(box, MERGEABLE | USO.host, BASIC | USO.guest)
        flow = Flow(MACS, 4, TCP)
        b.post(20, 600)
        send(a, USO, flow)
        box.settle()
        assert b.received() == []
        assert box.drops(1) == {"oversize": 1}
        assert len(a.rings[1].reap()) == 1


@pytest.mark.parametrize("allowed", [(), ("csum",), ("csum", "tso4", "ecn"), tuple(OFFLOADS)])
def test_a_port_offers_what_its_configuration_allows(allowed: tuple[str, ...]) -> None:
    with VhostBox() as box:
        port = box.ports[1]
        port.config = replace(port.config, offloads=allowed)
        front = box.front(1)
        (offered,) = U64.unpack(front.ask(Request.GET_FEATURES))
        for name, features in OFFLOADS.items():
            assert offered & features == (features if name in allowed else 0)
        assert offered | sum(OFFLOADS.values()) == OFFERED_FEATURES
        front.boot(MERGEABLE | (offered & sum(OFFLOADS.values())))


def test_one_frame_for_receivers_of_every_kind() -> None:
    """Flooded: what is completed for one must not harm what the next one gets."""
    everybody = b"\xff" * 6 + mac(A)
    with VhostBox(1 + len(KINDS)) as box:
        sender = box.front(0)
        sender.boot(MERGEABLE | USO.host)
        guests = {}
        for number, (name, kind) in enumerate(KINDS.items(), 1):
            guests[name] = box.front(number)
            guests[name].boot(MERGEABLE | kind.guest)
        for protocol in (TCP, UDP):
            flow = Flow(everybody, 6, protocol)
            for guest in guests.values():
                guest.post(30)
            send(sender, USO, flow)
            send(sender, CSUM, flow)
            box.settle()
            for name, guest in guests.items():
                frames = guest.received()
                large = (6, protocol) in KINDS[name].large
                first = 1 if large else len(frames) // 2
                for part in (frames[:first], frames[first:]):
                    check(flow, receive(flow, SEQ, part))
                assert receive(flow, SEQ, frames[:1]).large == large


# ---- taps


TAP_MAC = "02:00:00:00:00:0c"


def tap_header(flow: Flow, gso_size: int) -> bytes:
    return flow.header(gso_size) + bytes(2)


@contextmanager
def guest_and_tap(
    features: int, *, uso: bool = True
) -> Iterator[tuple[VhostBox, FrontEnd, BoxPort]]:
    """A guest at A and the host behind a tap at TAP_MAC, each known to the switch."""
    with VhostBox(1) as box:
        tap = BoxPort(1, uso=uso)
        box.ports.append(tap)  # type: ignore[arg-type]  # as much of a port as the box asks for
        box.republish()
        guest = box.front(0)
        guest.boot(features)
        guest.transmit(mac(TAP_MAC) + mac(A) + b"\x88\xb5" + bytes(46))
        guest.post(1)
        box.settle()
        tap.send(mac(A) + mac(TAP_MAC) + b"\x88\xb5" + bytes(46))
        box.settle()
        assert len(guest.frames()) == len(tap.receive_raw()) == 1
        yield box, guest, tap


@pytest.mark.parametrize("version", [4, 6], ids=["v4", "v6"])
@pytest.mark.parametrize("receiver", KINDS)
def test_from_a_tap(receiver: str, version: int) -> None:
    kind = KINDS[receiver]
    with guest_and_tap(MERGEABLE | kind.guest) as (box, guest, tap):
        for protocol in (TCP, UDP):
            flow = Flow(mac(A) + mac(TAP_MAC), version, protocol)
            guest.post(30)
            if protocol == TCP:
                frame = flow.frame(STREAM, seq=SEQ, flags=ACK | CWR | PSH | FIN, ident=IDENT)
                tap.send(frame, flow.header(MSS, ecn=True) + bytes(2))
            else:
                frame = flow.frame(b"".join(DATAGRAMS), ident=IDENT)
                tap.send(frame, tap_header(flow, DATAGRAM))
            box.settle()
            got = receive(flow, SEQ, guest.received())
            check(flow, got)
            assert got.large == ((version, protocol) in kind.large)
        assert box.drops(0) == tap.drops == {}


@pytest.mark.parametrize("uso", [True, False], ids=["linux 6.2", "older"])
@pytest.mark.parametrize("version", [4, 6], ids=["v4", "v6"])
@pytest.mark.parametrize("sender", KINDS)
def test_to_a_tap(sender: str, version: int, uso: bool) -> None:
    kind = KINDS[sender]
    with guest_and_tap(MERGEABLE | kind.host, uso=uso) as (box, guest, tap):
        for protocol in (TCP, UDP):
            flow = Flow(mac(TAP_MAC) + mac(A), version, protocol)
            sent = send(guest, kind, flow)
            box.settle()
            got = receive(flow, SEQ, tap.receive_raw())
            check(flow, got)
            assert got.large == (sent if uso or protocol == TCP else 0)
        assert box.drops(0) == tap.drops == {}


@pytest.mark.parametrize("receiver", ["nothing", "csum"])
def test_what_the_host_vouches_for(receiver: str) -> None:
    """DATA_VALID is for receivers with GUEST_CSUM only (5.1.6.4.1), and not a driver's to set."""
    with guest_and_tap(MERGEABLE | KINDS[receiver].guest) as (box, guest, tap):
        flow = Flow(mac(A) + mac(TAP_MAC), 4, UDP)
        guest.post(1)
        tap.send(flow.finished(flow.frame(STREAM[:500])), vnet_header(DATA_VALID))
        box.settle()
        ((header, frame),) = guest.received()
        assert header[:10] == bytes([DATA_VALID if receiver == "csum" else 0]) + bytes(9)
        assert receive(flow, 0, [(header, frame)]).datagrams == [STREAM[:500]]
        back = Flow(mac(TAP_MAC) + mac(A), 4, UDP)
        guest.transmit(back.finished(back.frame(STREAM[:500])), vnet_header(DATA_VALID))
        box.settle()
        ((header, _),) = tap.receive_raw()
        assert header == bytes(12)


@pytest.mark.parametrize("uso", [True, False], ids=["linux 6.2", "older"])
@pytest.mark.parametrize("version", [4, 6], ids=["v4", "v6"])
def test_large_datagrams_between_taps(version: int, uso: bool) -> None:
    flow = Flow(MACS, version, UDP)
    with SwitchBox(2, uso=uso) as box:
        sender, receiver = box.ports
        sender.send(flow.frame(b"".join(DATAGRAMS), ident=IDENT), tap_header(flow, DATAGRAM))
        box.settle()
        got = receive(flow, SEQ, receiver.receive_raw())
        check(flow, got)
        assert got.large == receiver.count("tx_gso_packets") == int(uso)
        assert receiver.drops == {}


def test_more_datagrams_than_a_kernel_makes_are_not_worth_so_many_calls() -> None:
    flow = Flow(MACS, 4, UDP)
    with SwitchBox(2, uso=False) as box:
        sender, receiver = box.ports
        sender.send(flow.frame(bytes(128)), tap_header(flow, 1))
        box.settle()
        assert len(receive(flow, SEQ, receiver.receive_raw()).datagrams) == 128
        sender.send(flow.frame(bytes(129)), tap_header(flow, 1))
        box.settle()
        assert receiver.receive_raw() == []
        assert receiver.drops == {"segments": 1}
