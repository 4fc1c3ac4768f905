"""mesh/cookie.py: who may be heard, and the cookie that proves where a message comes from."""

import pytest
from nacl import bindings

from mesh.cookie import COOKIE_LIFE_NS, Receiver, Sender, cookie_key
from mesh.errors import Refusal, RemoteError
from tests.fakes.cookies import NONCE, mac2

US, OTHER = bytes(range(32)), bytes(range(1, 33))
BODY = b"a handshake message"
COOKIE = b"sixteen bytes of"


@pytest.fixture
def receiver() -> Receiver:
    return Receiver(US)


def sealed(mac1: bytes, cookie: bytes = COOKIE) -> bytes:
    out: bytes = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
        cookie, mac1, NONCE, cookie_key(US)
    )
    return out


def test_mac1_is_for_one_receiver(receiver: Receiver) -> None:
    assert receiver.mac1_ok(Sender(US).close(BODY, 0))
    assert not receiver.mac1_ok(Sender(OTHER).close(BODY, 0))


@pytest.mark.parametrize("at", [0, len(BODY), len(BODY) + 15])
def test_mac1_covers_all_before_it(receiver: Receiver, at: int) -> None:
    message = bytearray(Sender(US).close(BODY, 0))
    message[at] ^= 1
    assert not receiver.mac1_ok(bytes(message))


def test_mac2_is_zero_without_cookie() -> None:
    assert Sender(US).close(BODY, 0)[-16:] == bytes(16)


def test_sender_uses_a_cookie_for_less_than_its_life() -> None:
    sender = Sender(US)
    sender.open_cookie(NONCE, sealed(sender.close(BODY, 0)[-32:-16]), 0)
    message = sender.close(BODY, COOKIE_LIFE_NS - 1)
    assert message[-16:] == mac2(COOKIE, message)
    assert sender.close(BODY, COOKIE_LIFE_NS)[-16:] == bytes(16)


def test_cookie_nobody_asked_for() -> None:
    with pytest.raises(RemoteError) as caught:
        Sender(US).open_cookie(NONCE, sealed(bytes(16)), 0)
    assert caught.value.refusal is Refusal.COOKIE


def test_cookie_for_another_message() -> None:
    sender = Sender(US)
    sender.close(BODY, 0)
    with pytest.raises(RemoteError) as caught:
        sender.open_cookie(NONCE, sealed(bytes(16)), 0)
    assert caught.value.refusal is Refusal.DECRYPTION


def test_cookie_is_taken_once_per_message() -> None:
    sender = Sender(US)
    reply = sealed(sender.close(BODY, 0)[-32:-16])
    sender.open_cookie(NONCE, reply, 0)
    with pytest.raises(RemoteError):
        sender.open_cookie(NONCE, reply, 0)
