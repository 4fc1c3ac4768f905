"""What mesh/core/cookie.c does, as the text of docs/mesh-protocol.md reads."""

from hashlib import blake2b

from nacl import bindings

from mesh import wire

NONCE = bytes(range(24))


def cookie_reply(initiation: wire.Initiation, public_key: bytes, cookie: bytes) -> bytes:
    """The answer of the node with public_key (32 bytes).  cookie: 16 bytes."""
    key = blake2b(b"vsw cookie" + public_key, digest_size=32).digest()
    sealed: bytes = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
        cookie, initiation.mac1, NONCE, key
    )
    return wire.cookie_reply(initiation.sender, NONCE, sealed)


def mac2(cookie: bytes, message: bytes) -> bytes:
    """What the last 16 bytes of message shall be."""
    return blake2b(message[:-16], key=cookie, digest_size=16).digest()
