"""Noise_IKpsk2_25519_ChaChaPoly_BLAKE2b, and nothing else of the framework.

    IKpsk2:
      <- s
      ...
      -> e, es, s, ss
      <- e, ee, se, psk

Two classes, one per role, each good for one handshake.  A method that raises has changed
nothing: the state is worked on as a copy and kept only when all checks have passed.
Source: Noise rev 34; sections are cited below.  Vectors: tests/golden/noise_ikpsk2.json.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Self

from nacl import bindings
from nacl.exceptions import CryptoError

from mesh.errors import LocalError, Refusal, RemoteError

PROTOCOL_NAME = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2b"
KEY_BYTES = 32
TAG_BYTES = 16
NO_PRESHARED_KEY = bytes(32)

_HASH_BYTES = 64


def dh(private: bytes, public: bytes) -> bytes:
    """X25519 (RFC 7748).  RemoteError when the result is zero: a point of low order."""
    try:
        shared: bytes = bindings.crypto_scalarmult(private, public)
    except RuntimeError:
        raise RemoteError(Refusal.LOW_ORDER) from None
    return shared


def hkdf(chaining_key: bytes, material: bytes, outputs: int) -> list[bytes]:
    """Section 4.3: two or three keys of 64 bytes each."""
    temporary = hmac.digest(chaining_key, material, hashlib.blake2b)
    keys: list[bytes] = []
    last = b""
    for number in range(1, outputs + 1):
        last = hmac.digest(temporary, last + bytes([number]), hashlib.blake2b)
        keys.append(last)
    return keys


class SymmetricState:
    """Section 5.2, with its CipherState (5.1) inside."""

    __slots__ = ("chaining_key", "hash", "key", "nonce")

    def __init__(self, prologue: bytes, responder_static: bytes) -> None:
        """Section 5.3, Initialize(), for a pattern whose only pre-message is "<- s"."""
        self.hash = PROTOCOL_NAME.ljust(_HASH_BYTES, b"\0")
        self.chaining_key = self.hash
        self.key: bytes | None = None
        self.nonce = 0
        self.mix_hash(prologue)
        self.mix_hash(responder_static)

    def copy(self) -> Self:
        twin = object.__new__(type(self))
        twin.hash = self.hash
        twin.chaining_key = self.chaining_key
        twin.key = self.key
        twin.nonce = self.nonce
        return twin

    def mix_hash(self, data: bytes) -> None:
        self.hash = hashlib.blake2b(self.hash + data).digest()

    def mix_key(self, material: bytes) -> None:
        self.chaining_key, key = hkdf(self.chaining_key, material, 2)
        self._initialize_key(key)

    def mix_key_and_hash(self, material: bytes) -> None:
        self.chaining_key, hashed, key = hkdf(self.chaining_key, material, 3)
        self.mix_hash(hashed)
        self._initialize_key(key)

    def mix_ephemeral(self, public: bytes) -> None:
        """Token "e" in a handshake with a PSK: section 9.2."""
        self.mix_hash(public)
        self.mix_key(public)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        key, nonce = self._next()
        sealed: bytes = bindings.crypto_aead_chacha20poly1305_ietf_encrypt(
            plaintext, self.hash, nonce, key
        )
        self.mix_hash(sealed)
        return sealed

    def decrypt_and_hash(self, sealed: bytes) -> bytes:
        key, nonce = self._next()
        try:
            plaintext: bytes = bindings.crypto_aead_chacha20poly1305_ietf_decrypt(
                sealed, self.hash, nonce, key
            )
        except (CryptoError, ValueError):
            raise RemoteError(Refusal.DECRYPTION) from None
        self.mix_hash(sealed)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """(initiator to responder, responder to initiator), 32 bytes each."""
        first, second = hkdf(self.chaining_key, b"", 2)
        return first[:KEY_BYTES], second[:KEY_BYTES]

    def _initialize_key(self, key: bytes) -> None:
        self.key = key[:KEY_BYTES]
        self.nonce = 0

    def _next(self) -> tuple[bytes, bytes]:
        if self.key is None:
            raise LocalError("nothing was mixed into the key yet")
        nonce = bytes(4) + self.nonce.to_bytes(8, "little")
        self.nonce += 1
        return self.key, nonce


class Initiator:
    """The side that knows the other's static key and speaks first."""

    __slots__ = ("_ephemeral", "_preshared_key", "_state", "_static_private", "message")

    def __init__(
        self,
        *,
        prologue: bytes,
        static_private: bytes,
        static_public: bytes,
        responder_static: bytes,
        static_shared: bytes,
        preshared_key: bytes,
        ephemeral_private: bytes,
        payload: bytes,
    ) -> None:
        """Writes message 1 to .message: e (32), s sealed (48), payload sealed (+16).

        static_shared: dh(static_private, responder_static), computed once per peer.
        ephemeral_private: 32 fresh random bytes.
        """
        state = SymmetricState(prologue, responder_static)
        ephemeral = bindings.crypto_scalarmult_base(ephemeral_private)
        state.mix_ephemeral(ephemeral)  # e
        state.mix_key(dh(ephemeral_private, responder_static))  # es
        sealed_static = state.encrypt_and_hash(static_public)  # s
        state.mix_key(static_shared)  # ss
        self.message: bytes = ephemeral + sealed_static + state.encrypt_and_hash(payload)
        self._state = state
        self._ephemeral = ephemeral_private
        self._static_private = static_private
        self._preshared_key = preshared_key

    def read_response(self, message: bytes) -> tuple[bytes, SymmetricState]:
        """message: message 2.  Returns (payload, state to split).

        RemoteError when it is not the answer; another message may be tried then.
        """
        if len(message) < KEY_BYTES + TAG_BYTES:
            raise RemoteError(Refusal.LENGTH)
        state = self._state.copy()
        ephemeral = message[:KEY_BYTES]
        state.mix_ephemeral(ephemeral)  # e
        state.mix_key(dh(self._ephemeral, ephemeral))  # ee
        state.mix_key(dh(self._static_private, ephemeral))  # se
        state.mix_key_and_hash(self._preshared_key)  # psk
        payload = state.decrypt_and_hash(message[KEY_BYTES:])
        return payload, state


class Responder:
    """The side that learns from message 1 who speaks."""

    __slots__ = ("_remote_ephemeral", "_sealed_payload", "_state", "remote_static")

    def __init__(
        self, *, prologue: bytes, static_private: bytes, static_public: bytes, message: bytes
    ) -> None:
        """Opens message 1 as far as the sender's static key, .remote_static.

        That key is authentic only once read_payload() has returned.
        """
        if len(message) < 2 * KEY_BYTES + 2 * TAG_BYTES:
            raise RemoteError(Refusal.LENGTH)
        state = SymmetricState(prologue, static_public)
        ephemeral = message[:KEY_BYTES]
        state.mix_ephemeral(ephemeral)  # e
        state.mix_key(dh(static_private, ephemeral))  # es
        sealed_static_end = 2 * KEY_BYTES + TAG_BYTES
        self.remote_static = state.decrypt_and_hash(message[KEY_BYTES:sealed_static_end])  # s
        self._sealed_payload = message[sealed_static_end:]
        self._remote_ephemeral = ephemeral
        self._state = state

    def read_payload(self, static_shared: bytes) -> bytes:
        """static_shared: dh of our static key with .remote_static, computed once per peer."""
        state = self._state.copy()
        state.mix_key(static_shared)  # ss
        payload = state.decrypt_and_hash(self._sealed_payload)
        self._state = state
        return payload

    def write_response(
        self, *, ephemeral_private: bytes, preshared_key: bytes, payload: bytes
    ) -> tuple[bytes, SymmetricState]:
        """After read_payload().  Returns (message 2, state to split)."""
        state = self._state.copy()
        ephemeral = bindings.crypto_scalarmult_base(ephemeral_private)
        state.mix_ephemeral(ephemeral)  # e
        state.mix_key(dh(ephemeral_private, self._remote_ephemeral))  # ee
        state.mix_key(dh(ephemeral_private, self.remote_static))  # se
        state.mix_key_and_hash(preshared_key)  # psk
        return ephemeral + state.encrypt_and_hash(payload), state
