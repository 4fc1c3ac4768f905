"""The handshake's three messages: layout, sizes, strict parsing.

Initiation (152 bytes)               Response (96 bytes)             Cookie reply (64 bytes)
   0  u8   type 1                       0  u8   type 2                  0  u8   type 3
   1  u8×3 zero                         1  u8×3 zero                    1  u8×3 zero
   4  u32  sender's index               4  u32  sender's index          4  u32  receiver's index
   8  32   ephemeral key                8  u32  receiver's index        8  24   nonce
  40  48   static key, sealed          12  32   ephemeral key          32  32   cookie, sealed
  88  32   payload, sealed             44  20   payload, sealed
 120  16   mac1                        64  16   mac1
 136  16   mac2, zero without cookie   80  16   mac2

Payload of an initiation: u64 seconds, u32 nanoseconds, u8 ciphers offered, u8×3 zero.
Payload of a response:    u8 cipher chosen, u8×3 zero.
Integers are little endian.  Bytes 1 to 3 are a record's hops left and lane: handshakes go by
lane 0.  docs/mesh-protocol.md says what the fields mean.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from mesh.errors import Refusal, RemoteError

TYPE_INITIATION = 1
TYPE_RESPONSE = 2
TYPE_COOKIE = 3
TYPE_RECORD = 4
TYPE_RELAY = 5
TYPE_TRACE = 6

MAC_BYTES = 16
INDEX_AT = 4
PROLOGUE = b"meshswitch mesh protocol 2"

_INITIATION = struct.Struct("<B3sI112s16s16s")
_RESPONSE = struct.Struct("<B3sII52s16s16s")
_COOKIE = struct.Struct("<B3sI24s32s")
_OFFER = struct.Struct("<QIB3s")
_CHOICE = struct.Struct("<B3s")

INITIATION_BYTES = _INITIATION.size
RESPONSE_BYTES = _RESPONSE.size
COOKIE_BYTES = _COOKIE.size

_ZERO3 = b"\0\0\0"
_NS_PER_S = 1_000_000_000


class Cipher(IntEnum):
    """Record ciphers; the value is the wire's number, and its bit in an offer is value - 1."""

    AES_256_GCM = 1
    CHACHA20_POLY1305 = 2

    @property
    def text(self) -> str:
        """As users write and read it."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class Initiation:
    sender: int
    noise: bytes  # 112 bytes
    mac1: bytes
    mac2: bytes


@dataclass(frozen=True, slots=True)
class Response:
    sender: int
    receiver: int
    noise: bytes  # 52 bytes
    mac1: bytes
    mac2: bytes


@dataclass(frozen=True, slots=True)
class CookieReply:
    receiver: int
    nonce: bytes  # 24 bytes
    sealed: bytes  # 32 bytes


Message = Initiation | Response | CookieReply


def parse(data: bytes) -> Message:
    """Raises RemoteError for anything but exactly one message of the table above."""
    if not data:
        raise RemoteError(Refusal.LENGTH)
    match data[0]:
        case 1:
            _check(data, INITIATION_BYTES)
            _, _, sender, noise, mac1, mac2 = _INITIATION.unpack(data)
            return Initiation(sender, noise, mac1, mac2)
        case 2:
            _check(data, RESPONSE_BYTES)
            _, _, sender, receiver, noise, mac1, mac2 = _RESPONSE.unpack(data)
            return Response(sender, receiver, noise, mac1, mac2)
        case 3:
            _check(data, COOKIE_BYTES)
            _, _, receiver, nonce, sealed = _COOKIE.unpack(data)
            return CookieReply(receiver, nonce, sealed)
        case _:
            raise RemoteError(Refusal.TYPE)


def _check(data: bytes, size: int) -> None:
    if len(data) != size:
        raise RemoteError(Refusal.LENGTH)
    if data[1:4] != _ZERO3:
        raise RemoteError(Refusal.RESERVED)


def initiation_index(data: bytes) -> int | None:
    """The sender's index when a message of ours is an initiation."""
    is_initiation = data[0] == TYPE_INITIATION
    return int.from_bytes(data[INDEX_AT : INDEX_AT + 4], "little") if is_initiation else None


def initiation(sender: int, noise: bytes) -> bytes:
    """The message up to mac1, 120 bytes."""
    return _INITIATION.pack(TYPE_INITIATION, _ZERO3, sender, noise, b"", b"")[: -2 * MAC_BYTES]


def response(sender: int, receiver: int, noise: bytes) -> bytes:
    """The message up to mac1, 64 bytes."""
    packed = _RESPONSE.pack(TYPE_RESPONSE, _ZERO3, sender, receiver, noise, b"", b"")
    return packed[: -2 * MAC_BYTES]


def cookie_reply(receiver: int, nonce: bytes, sealed: bytes) -> bytes:
    """The whole message, 64 bytes."""
    return _COOKIE.pack(TYPE_COOKIE, _ZERO3, receiver, nonce, sealed)


def offer(timestamp_ns: int, ciphers: tuple[Cipher, ...]) -> bytes:
    """An initiation's payload.  timestamp_ns: of the wall clock, since 1970."""
    bits = 0
    for cipher in ciphers:
        bits |= 1 << (cipher - 1)
    return _OFFER.pack(timestamp_ns // _NS_PER_S, timestamp_ns % _NS_PER_S, bits, _ZERO3)


def parse_offer(payload: bytes) -> tuple[int, frozenset[Cipher]]:
    """(timestamp in ns, ciphers offered that we know).  The payload is authentic by now."""
    if len(payload) != _OFFER.size:
        raise RemoteError(Refusal.PAYLOAD)
    seconds, nanoseconds, bits, zero = _OFFER.unpack(payload)
    if zero != _ZERO3 or nanoseconds >= _NS_PER_S:
        raise RemoteError(Refusal.PAYLOAD)
    ciphers = frozenset(cipher for cipher in Cipher if bits >> (cipher - 1) & 1)
    return seconds * _NS_PER_S + nanoseconds, ciphers


def choice(cipher: Cipher) -> bytes:
    """A response's payload."""
    return _CHOICE.pack(cipher, _ZERO3)


def parse_choice(payload: bytes) -> Cipher:
    """The cipher chosen; RemoteError when we do not know it."""
    if len(payload) != _CHOICE.size:
        raise RemoteError(Refusal.PAYLOAD)
    number, zero = _CHOICE.unpack(payload)
    if zero != _ZERO3:
        raise RemoteError(Refusal.PAYLOAD)
    try:
        return Cipher(number)
    except ValueError:
        raise RemoteError(Refusal.CIPHER) from None
