"""mesh/node.py: handshakes, rekeying, the data plane's news, configuration.

What strangers and liars get: test_mesh_refusals.py.  More nodes, and faults by the thousand:
tests/sim.
"""

from ipaddress import ip_address
from random import Random

import pytest

from mesh import peer as limits
from mesh.address import Address
from mesh.config import MAX_PEERS, PeerConfig
from mesh.errors import ConfigError
from mesh.events import (
    InstallKeypair,
    PeerAdded,
    PeerRemoved,
    RemoveKeypair,
    SendKeepalive,
    Traffic,
)
from mesh.handshake import State
from mesh.wire import Cipher
from tests.fakes.mesh_ends import STRANGER, End, S, Two


@pytest.fixture
def two() -> Two:
    return Two()


# ---- the handshake


def test_handshake(two: Two) -> None:
    assert two.a.state is State.INITIATING
    assert two.b.state is State.IDLE
    (initiation,) = two.deliver(two.a, two.b)
    (response,) = two.deliver(two.b, two.a)
    assert (len(initiation), len(response)) == (152, 96)
    (a,), (b,) = two.a.installed(), two.b.installed()
    assert (a.send_key, a.receive_key) == (b.receive_key, b.send_key)
    assert (a.local_index, a.remote_index) == (b.remote_index, b.local_index)
    assert (a.initiator, b.initiator) == (True, False)
    assert (a.endpoint, b.endpoint) == (two.b.address, two.a.address)
    assert a.cipher is b.cipher is Cipher.AES_256_GCM
    assert two.a.state is State.READY
    assert two.b.state is State.IDLE, "b has not seen that a has the key"
    assert isinstance(two.a.seen[-1], SendKeepalive)
    two.b.node.session_confirmed(b.local_index, two.now)
    assert two.b.state is State.READY


def test_peers_are_announced_before_their_keys(two: Two) -> None:
    two.settle()
    assert two.a.seen[0] == PeerAdded(0, two.b.identity.node_id)


def test_lost_initiation_is_repeated_with_a_fresh_one(two: Two) -> None:
    (first,) = two.a.out()
    assert two.a.node.next_timer() is not None
    two.wait(limits.RETRY_NS / S - 0.001)
    assert two.a.out() == []
    two.wait(0.34)
    (second,) = two.a.out()
    assert first[0][8:40] != second[0][8:40], "the ephemeral key was used again"
    two.b.node.receive_datagram(second[0], two.a.address, two.now)
    two.settle()
    assert two.a.state is State.READY


def test_gives_up_after_90_s_and_begins_again_when_needed(two: Two) -> None:
    sent = 0
    while two.now < 100 * S:
        sent += len(two.a.out())
        two.wait(0.5)
    assert 16 <= sent <= 19
    assert two.a.state is State.IDLE
    assert two.a.node.next_timer() is None
    two.a.node.need_session(0, two.now)
    assert len(two.a.out()) == 1


def test_several_endpoints_are_tried_in_turn() -> None:
    a, b = End(1, Random(1)), End(2, Random(2))
    others = [Address(ip_address(f"2001:db8::{i}"), 1) for i in (1, 2)]
    a.start([b.config(*others, b.address)])
    targets = []
    for step in range(4):
        a.node.poll(step * 6 * S)
        targets += [to for _, to in a.out()]
    assert targets == [*others, b.address, others[0]]


def test_needs_no_session_where_it_knows_no_address(two: Two) -> None:
    two.b.node.need_session(0, two.now)
    assert two.b.out() == []
    assert two.b.state is State.IDLE
    two.b.node.need_session(99, two.now)


def test_both_at_once_agree_on_one_session() -> None:
    two = Two(b_knows_a=True)
    from_a, from_b = two.a.out(), two.b.out()
    two.b.node.receive_datagram(from_a[0][0], two.a.address, two.now)
    two.a.node.receive_datagram(from_b[0][0], two.b.address, two.now)
    two.settle()
    winner = [i for i in two.a.installed() if i.initiator]
    assert len(winner) == 1
    assert [i for i in two.b.installed() if i.initiator] == []
    assert two.b.node.status(0)[0].sessions[0].local_index == winner[0].remote_index
    assert (two.a.state, two.b.state) == (State.READY, State.READY)


def test_the_loser_tries_again_when_the_winner_falls_silent() -> None:
    two = Two(b_knows_a=True)
    from_a, from_b = two.a.out(), two.b.out()
    two.b.node.receive_datagram(from_a[0][0], two.a.address, two.now)
    two.a.node.receive_datagram(from_b[0][0], two.b.address, two.now)
    two.b.out()  # b's answer is lost
    two.deliver(two.a, two.b)  # a's is not, and b yields
    assert two.b.state is State.INITIATING
    two.wait(5.5)
    two.settle()
    assert (two.a.state, two.b.state) == (State.READY, State.READY)


# ---- rekeying


def live(end: End) -> set[int]:
    """Local indexes that the data plane receives with."""
    end.events()
    added = {e.local_index for e in end.seen if isinstance(e, InstallKeypair)}
    return added - {e.local_index for e in end.seen if isinstance(e, RemoveKeypair)}


@pytest.mark.parametrize("a_is_answered_first", [True, False])
def test_both_at_once_receive_what_is_on_its_way(a_is_answered_first: bool) -> None:
    """Whatever key the other may send with: the old one until it saw the new one, and the one that
    it asked for.  And at the next key, the one in use, not what was left over."""
    two = Two(b_knows_a=True).connected()
    for _ in range(3):
        old = [i for i in two.a.installed() if i.initiator][-1].local_index
        two.now += 141 * S
        two.a.node.poll(two.now)
        two.b.node.poll(two.now)
        (ask_a, _), (ask_b, _) = two.a.out()[0], two.b.out()[0]
        two.b.node.receive_datagram(ask_a, two.a.address, two.now)
        if a_is_answered_first:
            two.deliver(two.b, two.a)
        two.a.node.receive_datagram(ask_b, two.b.address, two.now)
        assert live(two.a) >= {old}, "b has seen no new key in use"
        two.settle()
        assert live(two.a) >= {old}
        newest = [i for i in two.a.installed() if i.initiator][-1]
        two.b.node.session_confirmed(newest.remote_index, two.now)
        assert (two.a.state, two.b.state) == (State.READY, State.READY)


@pytest.mark.parametrize("confirmed", [True, False])
def test_a_key_that_was_overtaken(confirmed: bool) -> None:
    """We answered, then were answered: the other may use the older one as well, or never does."""
    two = Two(b_knows_a=True).connected()
    two.now += 141 * S
    two.a.node.poll(two.now)
    two.b.node.poll(two.now)
    (ask_a, _), (ask_b, _) = two.a.out()[0], two.b.out()[0]
    two.b.node.receive_datagram(ask_a, two.a.address, two.now)
    two.a.node.receive_datagram(ask_b, two.b.address, two.now)
    two.settle()
    asked = [i for i in two.a.installed() if i.initiator][-1]
    answered = [i for i in two.a.installed() if not i.initiator][-1]
    if confirmed:
        two.a.node.session_confirmed(answered.local_index, two.now)
    assert live(two.a) >= {asked.local_index, answered.local_index}
    assert two.a.state is State.READY
    two.wait(125)
    two.settle()
    assert asked.local_index in live(two.a), "the one in use"


def test_initiator_rekeys_after_120_s_and_old_keys_go_at_180_s(two: Two) -> None:
    two.connected()
    (old,) = two.a.installed()
    two.wait(119.9)
    assert two.a.out() == []
    two.wait(0.1)
    two.settle()
    assert len(two.a.installed()) == 2
    two.a.events()
    two.wait(59.9)
    assert two.a.node.events() == []
    two.wait(0.1)
    assert two.a.node.events() == [RemoveKeypair(0, old.local_index)]


def test_responder_rekeys_when_the_initiator_does_not(two: Two) -> None:
    two.connected()
    two.wait(139.9)
    two.a.out()
    assert two.b.out() == []
    two.wait(0.1)
    assert len(two.b.out()) == 1


def test_without_an_answer_the_key_is_rejected_after_180_s(two: Two) -> None:
    two.connected()
    while two.now < 181 * S:
        two.wait(1)
        two.a.out()
        two.b.out()
    assert two.a.state is State.INITIATING
    assert two.a.node.session_indexes() == []


@pytest.mark.parametrize(
    "traffic",
    [
        Traffic(sent_records=limits.REKEY_AFTER_RECORDS),
        Traffic(failed_records=limits.REKEY_AFTER_FAILED),
    ],
)
def test_worn_key_is_replaced(two: Two, traffic: Traffic) -> None:
    two.connected()
    (key,) = two.a.installed()
    two.a.node.traffic({key.local_index: Traffic(sent_records=5)}, two.now)
    assert two.a.state is State.READY
    two.a.node.traffic({key.local_index: traffic}, two.now)
    assert two.a.state is State.REKEYING


def test_unanswered_packets_lead_to_a_new_handshake_once(two: Two) -> None:
    two.connected()
    (key,) = two.a.installed()
    report = {key.local_index: Traffic(last_packet_sent=two.now + S, last_received=two.now)}
    two.a.node.traffic(report, two.now + S)
    two.a.node.traffic(report, two.now + S + limits.UNANSWERED_NS - 1)
    assert two.a.state is State.READY
    two.a.node.traffic(report, two.now + S + limits.UNANSWERED_NS)
    assert two.a.state is State.REKEYING
    two.now += S + limits.UNANSWERED_NS
    two.settle()
    two.a.node.traffic(report, two.now + 60 * S)
    assert two.a.state is State.READY


def test_received_packets_are_acknowledged_after_10_s(two: Two) -> None:
    two.connected()
    (key,) = two.a.installed()
    got = {key.local_index: Traffic(last_packet_received=5 * S, last_received=5 * S)}
    two.a.node.traffic(got, 6 * S)
    later = {key.local_index: Traffic(last_packet_received=14 * S, last_received=14 * S)}
    two.a.node.traffic(later, 14 * S)
    assert two.a.node.events() == []
    two.a.node.traffic(later, 15 * S)
    assert two.a.node.events() == [SendKeepalive(0)]
    answered = Traffic(last_packet_received=14 * S, last_keepalive_sent=15 * S)
    two.a.node.traffic({key.local_index: answered}, 40 * S)
    assert two.a.node.events() == []


def test_keepalives_are_not_acknowledged(two: Two) -> None:
    two.connected()
    (key,) = two.a.installed()
    for second in range(60):
        two.a.node.traffic({key.local_index: Traffic(last_received=second * S)}, second * S)
    assert two.a.node.events() == []


def test_three_sessions_at_most(two: Two) -> None:
    two.connected()
    for _ in range(5):
        two.now += S
        two.a.node.traffic(
            {i: Traffic(sent_records=1 << 31) for i in two.a.node.session_indexes()}, two.now
        )
        two.deliver(two.a, two.b)
        two.deliver(two.b, two.a)
        two.a.events()
        two.b.events()
        assert len(two.a.node.session_indexes()) <= 3
        assert len(two.b.node.session_indexes()) <= 3
        added = [e for e in two.b.seen if isinstance(e, InstallKeypair)]
        removed = [e for e in two.b.seen if isinstance(e, RemoveKeypair)]
        assert len(added) - len(removed) == len(two.b.node.session_indexes())


# ---- the data plane's news


def test_roaming_moves_the_next_handshake(two: Two) -> None:
    two.connected()
    (key,) = two.a.installed()
    two.a.node.endpoint_changed(key.local_index, STRANGER, two.now)
    two.wait(120)
    assert [to for _, to in two.a.out()] == [STRANGER]


def test_news_of_unknown_sessions_change_nothing(two: Two) -> None:
    two.connected()
    (key,) = two.a.installed()
    for index in (0, key.local_index ^ 1, key.local_index ^ 1 << 20):
        two.a.node.session_confirmed(index, two.now)
        two.a.node.endpoint_changed(index, STRANGER, two.now)
        two.a.node.session_lost(index, two.now)
    two.a.node.session_confirmed(key.local_index, two.now)  # ours: needs no confirmation
    assert two.a.state is State.READY
    assert two.a.node.status(0)[0].endpoint == two.b.address


def test_session_that_could_not_be_installed(two: Two) -> None:
    two.connected()
    (key,) = two.a.installed()
    two.a.node.session_lost(key.local_index, two.now)
    assert two.a.state is State.IDLE
    two.a.node.need_session(0, two.now)
    two.now += S
    two.connected()


def test_need_right_after_a_handshake_is_late_news(two: Two) -> None:
    two.connected()
    two.a.node.need_session(0, two.now + S)
    assert two.a.out() == []
    two.a.node.need_session(0, two.now + 6 * S)
    assert len(two.a.out()) == 1


# ---- configuration


def test_apply_of_the_same_changes_nothing(two: Two) -> None:
    two.connected()
    two.a.node.apply([two.b.config(two.b.address)], two.now)
    assert two.a.node.events() == []
    assert two.a.out() == []


def test_removed_peer_takes_its_keys_along(two: Two) -> None:
    two.connected()
    (key,) = two.a.installed()
    two.a.node.apply([], two.now)
    assert two.a.node.events() == [RemoveKeypair(0, key.local_index), PeerRemoved(0)]
    assert two.a.node.next_timer() is None
    assert two.a.node.peer_ids() == {}


def test_added_again_it_has_another_number(two: Two) -> None:
    two.a.node.apply([], two.now)
    two.a.node.apply([two.b.config(two.b.address)], two.now)
    assert two.a.node.peer_ids() == {two.b.identity.public_key: 1}


def test_other_preshared_key_ends_the_sessions(two: Two) -> None:
    two.connected()
    (key,) = two.a.installed()
    two.a.node.apply([two.b.config(two.b.address, psk=bytes([7]) * 32)], two.now)
    assert RemoveKeypair(0, key.local_index) in two.a.node.events()
    assert two.a.state is State.INITIATING


def test_other_endpoints_are_tried_and_the_session_stays(two: Two) -> None:
    two.connected()
    two.a.node.apply([two.b.config(STRANGER)], two.now)
    assert [to for _, to in two.a.out()] == [STRANGER]
    assert two.a.node.events() == []
    assert two.a.state is State.REKEYING


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("own", "own public key; remove it"),
        ("twice", "listed twice"),
        ("low order", "no valid Ed25519 key"),
        ("too many", "8193 peers are too many; list at most 8192"),
    ],
)
def test_wrong_peers_change_nothing(two: Two, wrong: str, message: str) -> None:
    two.connected()
    right = two.b.config(two.b.address)
    peers = {
        "own": [right, two.a.config()],
        "twice": [right, right],
        "low order": [PeerConfig(b"\1" + bytes(31))],
        "too many": [right] * (MAX_PEERS + 1),
    }[wrong]
    with pytest.raises(ConfigError, match=message):
        two.a.node.apply(peers, two.now)
    assert two.a.state is State.READY
    assert two.a.node.events() == []
