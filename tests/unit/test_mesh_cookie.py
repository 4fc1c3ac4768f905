"""mesh/cookie.py: who may be heard, and under load only from where it says it is."""

from ipaddress import ip_address
from random import Random

import pytest

from mesh.address import Address
from mesh.cookie import LOAD_PER_SECOND, SECRET_LIFE_NS, LoadMeter, Receiver, Sender
from mesh.errors import Refusal, RemoteError

US, OTHER = bytes(range(32)), bytes(range(1, 33))
HERE, THERE = Address(ip_address("192.0.2.1"), 1000), Address(ip_address("192.0.2.1"), 1001)
BODY = b"a handshake message"
S = 1_000_000_000


@pytest.fixture
def receiver() -> Receiver:
    return Receiver(US, Random(1))


def with_cookie(receiver: Receiver, sender: Sender, addr: Address, now: int) -> bytes:
    """A message closed with a cookie for addr."""
    mac1 = sender.close(BODY, now)[-32:-16]
    sender.open_cookie(*receiver.sealed_cookie(mac1, addr, now), now)
    return sender.close(BODY, now)


def test_mac1_is_for_one_receiver(receiver: Receiver) -> None:
    assert receiver.mac1_ok(Sender(US).close(BODY, 0))
    assert not receiver.mac1_ok(Sender(OTHER).close(BODY, 0))


@pytest.mark.parametrize("at", [0, len(BODY), len(BODY) + 15])
def test_mac1_covers_all_before_it(receiver: Receiver, at: int) -> None:
    message = bytearray(Sender(US).close(BODY, 0))
    message[at] ^= 1
    assert not receiver.mac1_ok(bytes(message))


def test_mac2_is_zero_without_cookie(receiver: Receiver) -> None:
    message = Sender(US).close(BODY, 0)
    assert message[-16:] == bytes(16)
    assert not receiver.mac2_ok(message, HERE, 0)


def test_cookie_proves_the_address(receiver: Receiver) -> None:
    message = with_cookie(receiver, Sender(US), HERE, 0)
    assert receiver.mac1_ok(message)
    assert receiver.mac2_ok(message, HERE, 0)
    assert not receiver.mac2_ok(message, THERE, 0)
    assert not receiver.mac2_ok(b"x" + message[1:], HERE, 0)


def test_cookie_outlives_one_change_of_secret_and_no_second(receiver: Receiver) -> None:
    message = with_cookie(receiver, Sender(US), HERE, 0)
    assert receiver.mac2_ok(message, HERE, SECRET_LIFE_NS)
    assert receiver.mac2_ok(message, HERE, 2 * SECRET_LIFE_NS - 1)
    assert not receiver.mac2_ok(message, HERE, 2 * SECRET_LIFE_NS)


def test_old_secret_is_forgotten_in_silence(receiver: Receiver) -> None:
    message = with_cookie(receiver, Sender(US), HERE, 0)
    assert not receiver.mac2_ok(message, HERE, 3 * SECRET_LIFE_NS)


def test_sender_uses_a_cookie_for_less_than_its_life(receiver: Receiver) -> None:
    sender = Sender(US)
    with_cookie(receiver, sender, HERE, 0)
    assert sender.close(BODY, SECRET_LIFE_NS - 6 * S)[-16:] != bytes(16)
    assert sender.close(BODY, SECRET_LIFE_NS - 5 * S)[-16:] == bytes(16)


def test_cookie_nobody_asked_for(receiver: Receiver) -> None:
    with pytest.raises(RemoteError) as caught:
        Sender(US).open_cookie(*receiver.sealed_cookie(bytes(16), HERE, 0), 0)
    assert caught.value.refusal is Refusal.COOKIE


def test_cookie_for_another_message(receiver: Receiver) -> None:
    sender = Sender(US)
    sender.close(BODY, 0)
    with pytest.raises(RemoteError) as caught:
        sender.open_cookie(*receiver.sealed_cookie(bytes(16), HERE, 0), 0)
    assert caught.value.refusal is Refusal.DECRYPTION


def test_cookie_is_taken_once_per_message(receiver: Receiver) -> None:
    sender = Sender(US)
    mac1 = sender.close(BODY, 0)[-32:-16]
    sealed = receiver.sealed_cookie(mac1, HERE, 0)
    sender.open_cookie(*sealed, 0)
    with pytest.raises(RemoteError):
        sender.open_cookie(*sealed, 0)


def test_load_begins_beyond_the_rate_and_ends_with_it() -> None:
    meter = LoadMeter(0)
    assert [meter.loaded(0) for _ in range(LOAD_PER_SECOND)] == [False] * LOAD_PER_SECOND
    assert meter.loaded(0)
    assert not meter.loaded(S // LOAD_PER_SECOND)
    assert meter.loaded(S // LOAD_PER_SECOND)
    assert not meter.loaded(100 * S)
