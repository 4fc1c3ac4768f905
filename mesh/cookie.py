"""The two MACs that end a handshake message, and the cookie that the second one proves.

mac1 shows that the sender knows whom it talks to: who does not, hears nothing.  mac2 shows that
it receives what is sent to its address; it is asked for under load only.  The construction is
WireGuard's, with keyed BLAKE2b throughout.
"""

from __future__ import annotations

import hashlib
import hmac

from nacl import bindings
from nacl.exceptions import CryptoError

from mesh.address import Address
from mesh.errors import Refusal, RemoteError
from mesh.identity import Rng
from mesh.wire import MAC_BYTES

_NS_PER_S = 1_000_000_000

NONCE_BYTES = 24
SECRET_LIFE_NS = 120 * _NS_PER_S
NO_MAC2 = bytes(MAC_BYTES)
LOAD_PER_SECOND = 50  # initiations; beyond that each has to prove its address


def mac1_key(public_key: bytes) -> bytes:
    """32 bytes.  public_key: the receiver's, Ed25519."""
    return hashlib.blake2b(b"vsw mac1" + public_key, digest_size=32).digest()


def _cookie_key(public_key: bytes) -> bytes:
    return hashlib.blake2b(b"vsw cookie" + public_key, digest_size=32).digest()


def _mac(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(data, key=key, digest_size=MAC_BYTES).digest()


class Receiver:
    """Checks the MACs of what reaches us, and bakes cookies.  Keeps nothing per sender."""

    def __init__(self, public_key: bytes, rng: Rng) -> None:
        self._mac1_key = mac1_key(public_key)
        self._cookie_key = _cookie_key(public_key)
        self._rng = rng
        self._secret = b""
        self._secret_until = -1
        self._older = b""

    def mac1_ok(self, message: bytes) -> bool:
        """message: whole, with both MACs at its end."""
        expected = _mac(self._mac1_key, message[: -2 * MAC_BYTES])
        return hmac.compare_digest(expected, message[-2 * MAC_BYTES : -MAC_BYTES])

    def mac2_ok(self, message: bytes, addr: Address, now: int) -> bool:
        """Whether mac2 was made with a cookie of ours for addr, of the last two secrets."""
        self._turn(now)
        fits = False
        for secret in (self._secret, self._older):
            if secret:
                expected = _mac(self._bake(secret, addr), message[:-MAC_BYTES])
                fits |= hmac.compare_digest(expected, message[-MAC_BYTES:])
        return fits

    def sealed_cookie(self, mac1: bytes, addr: Address, now: int) -> tuple[bytes, bytes]:
        """(nonce, sealed cookie): only who sent mac1 can open it."""
        self._turn(now)
        nonce = self._rng.randbytes(NONCE_BYTES)
        sealed: bytes = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
            self._bake(self._secret, addr), mac1, nonce, self._cookie_key
        )
        return nonce, sealed

    def _bake(self, secret: bytes, addr: Address) -> bytes:
        return _mac(secret, addr.packed() + addr.port.to_bytes(2, "little"))

    def _turn(self, now: int) -> None:
        if now >= self._secret_until:
            stale = now >= self._secret_until + SECRET_LIFE_NS
            self._older = b"" if stale else self._secret
            self._secret = self._rng.randbytes(32)
            self._secret_until = now + SECRET_LIFE_NS


class Sender:
    """Puts the MACs under what we send to one peer, and keeps the cookie it gave us."""

    def __init__(self, peer_public_key: bytes) -> None:
        self._mac1_key = mac1_key(peer_public_key)
        self._cookie_key = _cookie_key(peer_public_key)
        self._last_mac1: bytes | None = None
        self._cookie = b""
        self._cookie_until = -1

    def close(self, message: bytes, now: int) -> bytes:
        """message: up to mac1.  Returns it with both MACs."""
        mac1 = _mac(self._mac1_key, message)
        message += mac1
        self._last_mac1 = mac1
        mac2 = _mac(self._cookie, message) if self.has_cookie(now) else NO_MAC2
        return message + mac2

    def has_cookie(self, now: int) -> bool:
        return now < self._cookie_until

    def open_cookie(self, nonce: bytes, sealed: bytes, now: int) -> None:
        """Take the cookie in the answer to our last message; RemoteError when it is not that."""
        if self._last_mac1 is None:
            raise RemoteError(Refusal.COOKIE)
        try:
            cookie: bytes = bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
                sealed, self._last_mac1, nonce, self._cookie_key
            )
        except (CryptoError, ValueError):
            raise RemoteError(Refusal.DECRYPTION) from None
        self._cookie = cookie
        # A moment less than the receiver's: a cookie on its way must not grow stale.
        self._cookie_until = now + SECRET_LIFE_NS - 5 * _NS_PER_S
        self._last_mac1 = None


class LoadMeter:
    """Whether initiations come faster than LOAD_PER_SECOND: a token bucket of one second."""

    def __init__(self, now: int) -> None:
        self._credit_ns = _NS_PER_S
        self._at = now

    def loaded(self, now: int) -> bool:
        """Asked once per initiation, which it counts."""
        self._credit_ns = min(_NS_PER_S, self._credit_ns + now - self._at)
        self._at = now
        if self._credit_ns < _NS_PER_S // LOAD_PER_SECOND:
            return True
        self._credit_ns -= _NS_PER_S // LOAD_PER_SECOND
        return False
