"""The handshake: its states in one table, and its three steps as functions.

The functions turn bytes into keys and know no peers, timers or sockets; each raises RemoteError
before anything has changed.  node.py calls them, and commits what they return.

One initiation of ours may be under way per peer, independently of initiations of the peer's
that we answer: see Peer in peer.py.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from enum import Enum

from mesh import noise, wire
from mesh.errors import LocalError, Refusal, RemoteError
from mesh.identity import Identity, Rng
from mesh.wire import Cipher

RELAY_KEY_BYTES = 16


class State(Enum):
    """Of one peer: is there a key to send with, and is an initiation of ours under way?"""

    IDLE = "neither"
    INITIATING = "no key, initiation under way"
    READY = "a key, no initiation"
    REKEYING = "a key, initiation under way"


class Trigger(Enum):
    NEED = "a key is needed, or a fresh one"
    RETRY = "no answer for 5 s"
    RESPONSE = "the answer came"
    ANSWERED = "we answered the peer's initiation"
    CONFIRMED = "first record under a key that we answered with"
    GIVE_UP = "no answer for 90 s"
    EXPIRED = "the key is 180 s old"


TRANSITIONS: dict[tuple[State, Trigger], State] = {
    (State.IDLE, Trigger.NEED): State.INITIATING,
    (State.IDLE, Trigger.ANSWERED): State.IDLE,
    (State.IDLE, Trigger.CONFIRMED): State.READY,
    (State.INITIATING, Trigger.RETRY): State.INITIATING,
    (State.INITIATING, Trigger.RESPONSE): State.READY,
    (State.INITIATING, Trigger.ANSWERED): State.INITIATING,
    (State.INITIATING, Trigger.CONFIRMED): State.READY,
    (State.INITIATING, Trigger.GIVE_UP): State.IDLE,
    (State.READY, Trigger.NEED): State.REKEYING,
    (State.READY, Trigger.ANSWERED): State.READY,
    (State.READY, Trigger.CONFIRMED): State.READY,
    (State.READY, Trigger.EXPIRED): State.IDLE,
    (State.REKEYING, Trigger.RETRY): State.REKEYING,
    (State.REKEYING, Trigger.RESPONSE): State.READY,
    (State.REKEYING, Trigger.ANSWERED): State.REKEYING,
    (State.REKEYING, Trigger.CONFIRMED): State.READY,
    (State.REKEYING, Trigger.GIVE_UP): State.READY,
    (State.REKEYING, Trigger.EXPIRED): State.INITIATING,
}


def advance(state: State, trigger: Trigger) -> State:
    """The state after trigger.  LocalError when the table has no such line."""
    try:
        return TRANSITIONS[state, trigger]
    except KeyError:
        raise LocalError(f"{trigger.name} is not allowed in {state.name}") from None


def mermaid() -> str:
    """The table as a state diagram, for docs/mesh-protocol.md."""
    lines = ["stateDiagram-v2", "    [*] --> IDLE"]
    lines += [f"    {old.name} --> {new.name}: {t.name}" for (old, t), new in TRANSITIONS.items()]
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class PeerKeys:
    """What a handshake with one peer starts from.  static_shared: X25519 of both static keys."""

    public_key: bytes
    static_public: bytes
    static_shared: bytes = field(repr=False)
    preshared_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Keys:
    """What a handshake ends with."""

    local_index: int
    remote_index: int
    send_key: bytes = field(repr=False)
    receive_key: bytes = field(repr=False)
    relay_send_key: bytes = field(repr=False)
    relay_receive_key: bytes = field(repr=False)
    cipher: Cipher


@dataclass(frozen=True, slots=True)
class Attempt:
    """An initiation of ours that was sent.  message: up to mac1."""

    local_index: int
    offered: tuple[Cipher, ...]
    noise: noise.Initiator = field(repr=False)
    message: bytes = field(repr=False)


def begin(
    identity: Identity,
    peer: PeerKeys,
    *,
    local_index: int,
    timestamp_ns: int,
    ciphers: tuple[Cipher, ...],
    rng: Rng,
) -> Attempt:
    """Make an initiation.  timestamp_ns: greater than in every one before."""
    initiator = noise.Initiator(
        prologue=wire.PROLOGUE,
        static_private=identity.static_private,
        static_public=identity.static_public,
        responder_static=peer.static_public,
        static_shared=peer.static_shared,
        preshared_key=peer.preshared_key,
        ephemeral_private=rng.randbytes(noise.KEY_BYTES),
        payload=wire.offer(timestamp_ns, ciphers),
    )
    message = wire.initiation(local_index, initiator.message)
    return Attempt(local_index, ciphers, initiator, message)


def open_initiation(identity: Identity, message: wire.Initiation) -> noise.Responder:
    """.remote_static of the result says who claims to have sent it."""
    return noise.Responder(
        prologue=wire.PROLOGUE,
        static_private=identity.static_private,
        static_public=identity.static_public,
        message=message.noise,
    )


def answer(
    responder: noise.Responder,
    peer: PeerKeys,
    *,
    remote_index: int,
    local_index: int,
    cipher: Cipher,
    rng: Rng,
) -> tuple[bytes, Keys]:
    """(response up to mac1, keys).  The responder's payload has been read."""
    body, state = responder.write_response(
        ephemeral_private=rng.randbytes(noise.KEY_BYTES),
        preshared_key=peer.preshared_key,
        payload=wire.choice(cipher),
    )
    split = state.split()
    receive_key, send_key = traffic_keys(split, cipher)
    relay_receive_key, relay_send_key = relay_keys(split)
    message = wire.response(local_index, remote_index, body)
    return message, Keys(
        local_index,
        remote_index,
        send_key,
        receive_key,
        relay_send_key,
        relay_receive_key,
        cipher,
    )


def finish(attempt: Attempt, message: wire.Response) -> Keys:
    """The keys that a response agrees on.  After a RemoteError another may be tried."""
    payload, state = attempt.noise.read_response(message.noise)
    cipher = wire.parse_choice(payload)
    if cipher not in attempt.offered:
        raise RemoteError(Refusal.CIPHER)
    split = state.split()
    send_key, receive_key = traffic_keys(split, cipher)
    relay_send_key, relay_receive_key = relay_keys(split)
    return Keys(
        attempt.local_index,
        message.sender,
        send_key,
        receive_key,
        relay_send_key,
        relay_receive_key,
        cipher,
    )


def traffic_keys(split: tuple[bytes, bytes], cipher: Cipher) -> tuple[bytes, bytes]:
    """Record keys (initiator to responder, and back) from what Noise split.

    HKDF (RFC 5869) with HMAC-BLAKE2b: one split key can never serve two ciphers.
    """
    keys = []
    for direction, secret in enumerate(split):
        extracted = hmac.digest(b"vsw record key", secret, hashlib.blake2b)
        expanded = hmac.digest(extracted, bytes([cipher, direction, 1]), hashlib.blake2b)
        keys.append(expanded[: noise.KEY_BYTES])
    return keys[0], keys[1]


def relay_keys(split: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """Keys of relay headers, 16 bytes each, in the same order, by the same construction."""
    keys = []
    for direction, secret in enumerate(split):
        extracted = hmac.digest(b"vsw relay key", secret, hashlib.blake2b)
        expanded = hmac.digest(extracted, bytes([direction, 1]), hashlib.blake2b)
        keys.append(expanded[:RELAY_KEY_BYTES])
    return keys[0], keys[1]
