"""mesh/wire.py: what parses, and all that does not."""

import struct

import pytest

from mesh import wire
from mesh.errors import Refusal, RemoteError
from mesh.wire import Cipher

INITIATION = wire.initiation(0x01020304, bytes(range(112))) + b"1" * 16 + b"2" * 16
RESPONSE = wire.response(0x01020304, 0x05060708, bytes(range(52))) + b"1" * 16 + b"2" * 16
COOKIE = wire.cookie_reply(0x01020304, bytes(range(24)), bytes(range(32)))


def test_sizes_are_those_of_the_protocol() -> None:
    assert (len(INITIATION), len(RESPONSE), len(COOKIE)) == (152, 96, 64)
    assert (wire.INITIATION_BYTES, wire.RESPONSE_BYTES, wire.COOKIE_BYTES) == (152, 96, 64)


def test_messages_parse_to_what_was_written() -> None:
    assert wire.parse(INITIATION) == wire.Initiation(
        0x01020304, bytes(range(112)), b"1" * 16, b"2" * 16
    )
    assert wire.parse(RESPONSE) == wire.Response(
        0x01020304, 0x05060708, bytes(range(52)), b"1" * 16, b"2" * 16
    )
    assert wire.parse(COOKIE) == wire.CookieReply(0x01020304, bytes(range(24)), bytes(range(32)))


def test_layout_is_little_endian_and_at_its_offsets() -> None:
    assert INITIATION[:8] == bytes([1, 0, 0, 0, 4, 3, 2, 1])
    assert RESPONSE[:12] == bytes([2, 0, 0, 0, 4, 3, 2, 1, 8, 7, 6, 5])
    assert COOKIE[:8] == bytes([3, 0, 0, 0, 4, 3, 2, 1])


@pytest.mark.parametrize("message", [INITIATION, RESPONSE, COOKIE], ids=["init", "resp", "cookie"])
@pytest.mark.parametrize("change", [-64, -1, 1, 1000])
def test_wrong_length(message: bytes, change: int) -> None:
    data = message[:change] if change < 0 else message + bytes(change)
    assert refusal(data) is Refusal.LENGTH


@pytest.mark.parametrize("message", [INITIATION, RESPONSE, COOKIE], ids=["init", "resp", "cookie"])
@pytest.mark.parametrize("byte", [1, 2, 3])
def test_reserved_bytes_are_zero(message: bytes, byte: int) -> None:
    data = bytearray(message)
    data[byte] = 1
    assert refusal(bytes(data)) is Refusal.RESERVED


@pytest.mark.parametrize("kind", [0, 4, 5, 255])
def test_unknown_type(kind: int) -> None:
    assert refusal(bytes([kind]) + INITIATION[1:]) is Refusal.TYPE


def test_nothing() -> None:
    assert refusal(b"") is Refusal.LENGTH


def refusal(data: bytes) -> Refusal:
    with pytest.raises(RemoteError) as caught:
        wire.parse(data)
    return caught.value.refusal


def test_offer_round_trip() -> None:
    both = (Cipher.CHACHA20_POLY1305, Cipher.AES_256_GCM)
    payload = wire.offer(1_700_000_000_123_456_789, both)
    assert payload == struct.pack("<QIB3x", 1_700_000_000, 123_456_789, 3)
    assert wire.parse_offer(payload) == (1_700_000_000_123_456_789, frozenset(both))


def test_offer_of_unknown_ciphers_leaves_those_we_know() -> None:
    payload = struct.pack("<QIB3x", 1, 2, 0b11111101)
    assert wire.parse_offer(payload)[1] == {Cipher.AES_256_GCM}


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        bytes(15),
        bytes(17),
        struct.pack("<QIB3x", 1, 1_000_000_000, 1),
        struct.pack("<QIB3s", 1, 0, 1, b"\0\0\1"),
    ],
)
def test_malformed_offer(payload: bytes) -> None:
    with pytest.raises(RemoteError) as caught:
        wire.parse_offer(payload)
    assert caught.value.refusal is Refusal.PAYLOAD


@pytest.mark.parametrize(
    ("payload", "refusal"),
    [
        (b"", Refusal.PAYLOAD),
        (bytes(3), Refusal.PAYLOAD),
        (b"\1\0\0\1", Refusal.PAYLOAD),
        (bytes(4), Refusal.CIPHER),
        (b"\3\0\0\0", Refusal.CIPHER),
    ],
)
def test_malformed_choice(payload: bytes, refusal: Refusal) -> None:
    with pytest.raises(RemoteError) as caught:
        wire.parse_choice(payload)
    assert caught.value.refusal is refusal


@pytest.mark.parametrize("cipher", list(Cipher))
def test_choice_round_trip(cipher: Cipher) -> None:
    assert wire.parse_choice(wire.choice(cipher)) is cipher
