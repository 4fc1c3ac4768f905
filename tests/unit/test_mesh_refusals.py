"""mesh/node.py: what strangers, liars and replays get, which is next to nothing."""

from random import Random

import pytest

from mesh import peer as limits
from mesh import wire
from mesh.cookie import Sender
from mesh.errors import Refusal
from mesh.handshake import State
from mesh.wire import Cipher
from tests.fakes.cookies import cookie_reply, mac2
from tests.fakes.mesh_ends import STRANGER, WALL, End, S, Two

COOKIE = b"sixteen bytes of"


@pytest.fixture
def two() -> Two:
    return Two()


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


def test_key_that_was_overtaken_and_used_binds_its_initiation() -> None:
    """Found by the simulator: a confirmation that promotes nothing still counts."""
    two = Two(b_knows_a=True)
    ((from_b, _),) = two.b.out()
    two.a.node.receive_datagram(from_b, two.b.address, two.now)
    (answer,) = two.a.installed()
    two.deliver(two.a, two.b)  # b yields; a's own handshake overtakes its answer
    two.settle()
    two.a.node.session_confirmed(answer.local_index, two.now)
    two.now += 10 * S
    two.a.node.receive_datagram(from_b, STRANGER, two.now)
    assert two.a.node.refused[Refusal.STALE] == 1


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


def test_replays_after_a_restart_do_not_make_us_yield_for_ever(two: Two) -> None:
    """b restarts; whenever it initiates, somebody replays an old initiation of a, to which b would
    yield if a had sent it now."""
    ((old, _),) = two.a.out()
    two.a.start([two.b.config()])
    two.b.start([two.a.config(two.a.address)])
    for attempt in range(2):
        ((initiation, _),) = two.b.out()
        two.b.node.receive_datagram(old, STRANGER, two.now)
        assert [to for _, to in two.b.out()] == [STRANGER]
        two.a.node.receive_datagram(initiation, two.b.address, two.now)
        two.deliver(two.a, two.b)
        assert two.b.state is (State.READY if attempt else State.INITIATING)
        two.wait(5.5)


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


def test_replays_send_no_more_than_they_are(two: Two) -> None:
    (data,) = two.deliver(two.a, two.b)
    two.settle()
    sent = []
    for _ in range(100):
        two.wait(2)
        two.b.node.receive_datagram(data, STRANGER, two.now)
        sent += [to for _, to in two.b.out() if to == STRANGER]
        two.a.out()
    assert len(sent) <= 100 * 2 // 5 + 1
    two.wait(6)
    two.b.out()
    two.wait(6)
    assert STRANGER not in [to for _, to in two.b.out()]


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


def test_response_to_a_session_is_none_to_the_attempt(two: Two) -> None:
    """Its index is protected by the first MAC alone, which everybody can make."""
    two.connected()
    (session,) = two.a.node.session_indexes()
    two.wait(120)
    two.deliver(two.a, two.b)
    ((data, _),) = two.b.out()
    moved = data[:8] + session.to_bytes(4, "little") + data[12:64]
    moved = Sender(two.a.identity.public_key).close(moved, two.now)
    two.a.node.receive_datagram(moved, two.b.address, two.now)
    refused(two.a, Refusal.UNKNOWN_INDEX)
    two.a.node.receive_datagram(data, two.b.address, two.now)
    assert two.a.state is State.READY


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


# ---- load, as mesh/core sees it: cookies are asked for there


def ask_for_cookie(two: Two) -> bytes:
    """What b's data plane answers to a's initiation."""
    ((data, _),) = two.a.out()
    initiation = wire.parse(data)
    assert isinstance(initiation, wire.Initiation)
    return cookie_reply(initiation, two.b.identity.public_key, COOKIE)


def test_cookie_that_was_asked_for_is_taken(two: Two) -> None:
    two.a.node.receive_datagram(ask_for_cookie(two), two.b.address, two.now)
    (again,) = two.deliver(two.a, two.b)
    assert again[-16:] == mac2(COOKIE, again)
    two.settle()
    assert (two.a.state, two.b.state) == (State.READY, State.READY)


def test_two_cookies_in_a_row_do_not_make_two_nodes_talk_without_end(two: Two) -> None:
    two.a.node.receive_datagram(ask_for_cookie(two), two.b.address, two.now)
    two.a.node.receive_datagram(ask_for_cookie(two), two.b.address, two.now)
    assert two.a.out() == []


@pytest.mark.parametrize("at", [4, 8, 40, 63])
def test_forged_cookie(two: Two, at: int) -> None:
    broken = bytearray(ask_for_cookie(two))
    broken[at] ^= 1
    two.a.node.receive_datagram(bytes(broken), two.b.address, two.now)
    assert two.a.out() == []
    assert two.a.node.refused.total() == 1
