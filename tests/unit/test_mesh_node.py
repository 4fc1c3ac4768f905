"""mesh/node.py: two nodes in one hand, every datagram in the other.

A network is a list; time is a number.  More nodes, and faults by the thousand: tests/sim.
"""

from ipaddress import ip_address
from random import Random

import pytest

from mesh import peer as limits
from mesh.address import Address
from mesh.config import PeerConfig
from mesh.cookie import LOAD_PER_SECOND
from mesh.errors import ConfigError, Refusal
from mesh.events import (
    Event,
    InstallKeypair,
    PeerAdded,
    PeerRemoved,
    RemoveKeypair,
    SendKeepalive,
    Traffic,
)
from mesh.handshake import State
from mesh.identity import Identity
from mesh.node import Node
from mesh.wire import Cipher

S = 1_000_000_000
WALL = 1_700_000_000 * S
STRANGER = Address(ip_address("203.0.113.9"), 9)


class End:
    """A node, its address, and what it said so far."""

    def __init__(self, number: int, rng: Random) -> None:
        self.identity = Identity(bytes([number]) * 32)
        self.address = Address(ip_address(f"192.0.2.{number}"), 7400)
        self.rng = rng
        self.seen: list[Event] = []
        self.node: Node

    def start(self, peers: list[PeerConfig], now: int = 0, **arguments: object) -> None:
        self.node = Node(
            self.identity,
            peers,
            self.rng,
            now,
            **{"wall_offset_ns": WALL, **arguments},
        )

    def config(self, *endpoints: Address, psk: bytes | None = None) -> PeerConfig:
        """As others know it."""
        return PeerConfig(self.identity.public_key, endpoints, preshared_key=psk)

    def out(self) -> list[tuple[bytes, Address]]:
        return self.node.datagrams_to_send()

    def events(self) -> list[Event]:
        fresh = self.node.events()
        self.seen += fresh
        return fresh

    def installed(self) -> list[InstallKeypair]:
        self.events()
        return [e for e in self.seen if isinstance(e, InstallKeypair)]

    @property
    def state(self) -> State:
        return self.node.status(0)[0].state


class Two:
    """a knows where b is; b learns where a is."""

    def __init__(self, *, b_knows_a: bool = False) -> None:
        self.rng = Random(1)
        # The smaller public key wins when both initiate: let that be a.
        ends = sorted((End(n, self.rng) for n in (1, 2)), key=lambda e: e.identity.public_key)
        self.a, self.b = ends
        self.now = 0
        self.b.start([self.a.config(*([self.a.address] if b_knows_a else []))])
        self.a.start([self.b.config(self.b.address)])

    def deliver(self, source: End, target: End) -> list[bytes]:
        """Everything that source has to say; returns it."""
        datagrams = source.out()
        for data, to in datagrams:
            assert to == target.address
            target.node.receive_datagram(data, source.address, self.now)
        return [data for data, _ in datagrams]

    def settle(self) -> None:
        """No loss: both talk until neither has more to say; then keys are confirmed."""
        while self.deliver(self.a, self.b) or self.deliver(self.b, self.a):
            pass
        self.confirm()

    def confirm(self) -> None:
        """As the data plane does on the keepalive that follows a handshake."""
        for end, other in ((self.a, self.b), (self.b, self.a)):
            if any(isinstance(e, SendKeepalive) for e in end.events()):
                sealed_with = [i for i in end.installed() if i.initiator][-1]
                other.node.session_confirmed(sealed_with.remote_index, self.now)

    def connected(self) -> "Two":
        self.settle()
        assert (self.a.state, self.b.state) == (State.READY, State.READY)
        self.a.events()
        self.b.events()
        return self

    def wait(self, seconds: float) -> None:
        self.now += int(seconds * S)
        self.a.node.poll(self.now)
        self.b.node.poll(self.now)


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
        two.a.node.traffic({i: Traffic(sent_records=1 << 31) for i in two.a.node.session_indexes()},
                           two.now)
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


# ---- what strangers and liars get


def refused(end: End, *expected: Refusal) -> None:
    assert end.node.refused == {r: expected.count(r) for r in expected}
    assert end.node.datagrams_to_send() == []
    end.node.refused.clear()


def test_wrong_mac1_gets_silence(two: Two) -> None:
    ((data, _),) = two.a.out()
    for at in (4, 8, 60, 119, 120, 135):
        broken = bytearray(data)
        broken[at] ^= 1
        two.b.node.receive_datagram(bytes(broken), two.a.address, two.now)
        refused(two.b, Refusal.MAC1)


def test_initiation_for_another_node_gets_silence(two: Two) -> None:
    other = End(3, two.rng)
    other.start([two.a.config()])
    ((data, _),) = two.a.out()
    other.node.receive_datagram(data, two.a.address, two.now)
    refused(other, Refusal.MAC1)


def test_unknown_initiator_gets_silence(two: Two) -> None:
    other = End(3, two.rng)
    other.start([two.b.config(two.b.address)])
    ((data, _),) = other.out()
    two.b.node.receive_datagram(data, other.address, two.now)
    refused(two.b, Refusal.UNKNOWN_PEER)
    assert two.b.node.session_indexes() == []


def test_other_preshared_key(two: Two) -> None:
    two.b.node.apply([two.a.config(psk=bytes([9]) * 32)], two.now)
    two.deliver(two.a, two.b)
    two.deliver(two.b, two.a)
    refused(two.a, Refusal.DECRYPTION)
    assert two.a.state is State.INITIATING


def test_no_common_cipher(two: Two) -> None:
    two.b.start([two.a.config()], ciphers=(Cipher.CHACHA20_POLY1305,))
    two.deliver(two.a, two.b)
    refused(two.b, Refusal.CIPHER)


def test_responder_prefers_its_own_cipher(two: Two) -> None:
    both = (Cipher.CHACHA20_POLY1305, Cipher.AES_256_GCM)
    two.a.out()
    two.a.start([two.b.config(two.b.address)], ciphers=both)
    two.b.start([two.a.config()], ciphers=both[::-1])
    two.settle()
    assert two.a.installed()[0].cipher is Cipher.AES_256_GCM


def test_replayed_initiation(two: Two) -> None:
    (data,) = two.deliver(two.a, two.b)
    two.settle()
    two.now += S
    sessions = two.b.node.session_indexes()
    two.b.node.receive_datagram(data, STRANGER, two.now)
    refused(two.b, Refusal.STALE)
    assert two.b.node.session_indexes() == sessions
    assert two.b.node.status(0)[0].endpoint == two.a.address


def test_replay_after_a_restart_binds_nobody(two: Two) -> None:
    """b restarts, and gets an old initiation of a, whose clock has been set back since."""
    (old,) = two.deliver(two.a, two.b)
    two.b.start([two.a.config()], two.now)
    two.b.node.receive_datagram(old, STRANGER, two.now)
    two.b.out()
    two.a.start([two.b.config(two.b.address)], two.now, wall_offset_ns=WALL - 3600 * S)
    two.deliver(two.a, two.b)
    assert two.b.node.refused[Refusal.STALE] == 1
    two.wait(6)
    two.settle()
    assert (two.a.state, two.b.state) == (State.READY, State.READY)


def test_clock_set_back_is_overcome_by_the_other_side(two: Two) -> None:
    two.connected()
    two.now += 20 * S
    two.a.start([two.b.config(two.b.address)], two.now, wall_offset_ns=WALL - 3600 * S)
    two.a.seen.clear()
    two.deliver(two.a, two.b)
    assert two.b.node.refused[Refusal.STALE] == 1
    two.settle()
    assert (two.a.state, two.b.state) == (State.READY, State.READY)
    assert [i.initiator for i in two.a.installed()] == [False]


def test_initiations_in_quick_succession(two: Two) -> None:
    two.deliver(two.a, two.b)
    two.b.out()
    two.a.start([two.b.config(two.b.address)], wall_offset_ns=WALL + S)
    two.now += limits.INITIATION_INTERVAL_NS - 1
    two.deliver(two.a, two.b)
    refused(two.b, Refusal.TOO_SOON)


def test_response_twice(two: Two) -> None:
    two.deliver(two.a, two.b)
    (data,) = two.deliver(two.b, two.a)
    two.a.node.receive_datagram(data, two.b.address, two.now)
    refused(two.a, Refusal.UNKNOWN_INDEX)
    assert len(two.a.installed()) == 1


def test_response_nobody_waits_for(two: Two) -> None:
    two.deliver(two.a, two.b)
    ((data, _),) = two.b.out()
    two.a.start([two.b.config(two.b.address)])
    two.a.out()
    two.a.node.receive_datagram(data, two.b.address, two.now)
    refused(two.a, Refusal.UNKNOWN_INDEX)


def test_response_with_flipped_bits_does_not_end_the_attempt(two: Two) -> None:
    two.deliver(two.a, two.b)
    ((data, _),) = two.b.out()
    for at in range(len(data) - 16):  # mac2 is not looked at in responses
        broken = bytearray(data)
        broken[at] ^= 0x10
        two.a.node.receive_datagram(bytes(broken), two.b.address, two.now)
    assert two.a.node.refused.total() == len(data) - 16
    two.a.node.receive_datagram(data, two.b.address, two.now)
    assert two.a.state is State.READY


@pytest.mark.parametrize("state", list(State))
def test_garbage_in_every_state(state: State) -> None:
    two = Two()
    if state is State.IDLE:
        two.a.start([two.b.config()])
    elif state is not State.INITIATING:
        two.connected()
    if state is State.REKEYING:
        two.wait(120)
    assert two.a.state is state
    two.a.out()
    rng = Random(5)
    for length in (0, 1, 4, 63, 64, 65, 95, 96, 97, 151, 152, 153, 1500):
        for kind in range(6):
            data = bytes([kind, 0, 0, 0][:length]) + rng.randbytes(max(0, length - 4))
            two.a.node.receive_datagram(data, STRANGER, two.now)
    assert two.a.state is state
    assert two.a.node.datagrams_to_send() == []
    assert two.a.node.refused.total() == 13 * 6


# ---- load


def flood(two: Two) -> None:
    """Initiations that cost a key agreement each: mac1 is right, the rest is noise."""
    ((data, _),) = two.a.out()
    for number in range(LOAD_PER_SECOND):
        liar = End(100, Random(number))
        liar.start([two.b.config(two.b.address)])
        for message, _ in liar.out():
            two.b.node.receive_datagram(message, STRANGER, two.now)
    assert two.b.node.datagrams_to_send() == []
    two.b.node.receive_datagram(data, two.a.address, two.now)


def test_under_load_a_cookie_is_asked_for_and_taken(two: Two) -> None:
    flood(two)
    assert two.b.node.refused[Refusal.LOAD] == 1
    (reply,) = two.deliver(two.b, two.a)
    assert len(reply) == 64
    (again,) = two.deliver(two.a, two.b)
    assert again[-16:] != bytes(16)
    two.settle()
    assert (two.a.state, two.b.state) == (State.READY, State.READY)


def test_cookie_is_worth_nothing_from_another_address(two: Two) -> None:
    flood(two)
    two.deliver(two.b, two.a)
    ((again, _),) = two.a.out()
    two.b.node.receive_datagram(again, STRANGER, two.now)
    assert two.b.node.refused[Refusal.LOAD] == 2


def test_two_cookies_in_a_row_do_not_make_two_nodes_talk_without_end(two: Two) -> None:
    flood(two)
    ((reply, _),) = two.b.out()
    two.a.node.receive_datagram(reply, two.b.address, two.now)
    ((again, _),) = two.a.out()
    two.b.node.receive_datagram(again, STRANGER, two.now)
    ((reply, _),) = two.b.out()
    two.a.node.receive_datagram(reply, two.b.address, two.now)
    assert two.a.out() == []


@pytest.mark.parametrize("at", [4, 8, 40, 63])
def test_forged_cookie(two: Two, at: int) -> None:
    flood(two)
    ((reply, _),) = two.b.out()
    broken = bytearray(reply)
    broken[at] ^= 1
    two.a.node.receive_datagram(bytes(broken), two.b.address, two.now)
    assert two.a.out() == []
    assert two.a.node.refused.total() == 1


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


@pytest.mark.parametrize("wrong", ["own", "twice", "low order", "too many"])
def test_wrong_peers_change_nothing(two: Two, wrong: str) -> None:
    two.connected()
    right = two.b.config(two.b.address)
    peers = {
        "own": [right, two.a.config()],
        "twice": [right, right],
        "low order": [PeerConfig(b"\1" + bytes(31))],
        "too many": [right] * 9000,
    }[wrong]
    with pytest.raises(ConfigError):
        two.a.node.apply(peers, two.now)
    assert two.a.state is State.READY
    assert two.a.node.events() == []
