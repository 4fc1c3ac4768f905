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

from mesh.errors import Refusal, RemoteError
from mesh.wire import MAC_BYTES

_NS_PER_S = 1_000_000_000

# A moment less than at its maker: a cookie must not grow stale on its way.
COOKIE_LIFE_NS = 115 * _NS_PER_S
NO_MAC2 = bytes(MAC_BYTES)


def mac1_key(public_key: bytes) -> bytes:
    """32 bytes.  public_key: the receiver's, Ed25519."""
    return hashlib.blake2b(b"vsw mac1" + public_key, digest_size=32).digest()


def cookie_key(public_key: bytes) -> bytes:
    """32 bytes.  public_key: of who asks for proof."""
    return hashlib.blake2b(b"vsw cookie" + public_key, digest_size=32).digest()


def _mac(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(data, key=key, digest_size=MAC_BYTES).digest()


class Receiver:
    """Checks the first MAC of what reaches us.  The second one, cookies and rates: cookie.c and
    handshake.c of mesh/core, before anything comes here."""

    def __init__(self, public_key: bytes) -> None:
        self._mac1_key = mac1_key(public_key)

    def mac1_ok(self, message: bytes) -> bool:
        """message: whole, with both MACs at its end."""
        expected = _mac(self._mac1_key, message[: -2 * MAC_BYTES])
        return hmac.compare_digest(expected, message[-2 * MAC_BYTES : -MAC_BYTES])


class Sender:
    """Puts the MACs under what we send to one peer, and keeps the cookie it gave us."""

    def __init__(self, peer_public_key: bytes) -> None:
        self._mac1_key = mac1_key(peer_public_key)
        self._cookie_key = cookie_key(peer_public_key)
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
        self._cookie_until = now + COOKIE_LIFE_NS
        self._last_mac1 = None
