"""Who a node is: an Ed25519 key pair, its X25519 image, and its short name on the wire."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Protocol

from nacl import bindings

from mesh.errors import ConfigError

KEY_BYTES = 32
NODE_ID_BYTES = 8


class Rng(Protocol):
    """Randomness, injected: the system's in the daemon, seeded in tests."""

    def randbytes(self, n: int, /) -> bytes: ...


class Identity:
    """A node's own keys.  Holds secrets: its repr() shows the public key only."""

    __slots__ = ("node_id", "public_key", "static_private", "static_public")

    def __init__(self, seed: bytes) -> None:
        """seed: 32 bytes, the Ed25519 private key of RFC 8032, 5.1.5."""
        public, private = bindings.crypto_sign_seed_keypair(seed)
        self.public_key: bytes = public
        self.node_id = node_id(public)
        self.static_private: bytes = bindings.crypto_sign_ed25519_sk_to_curve25519(private)
        self.static_public: bytes = bindings.crypto_scalarmult_base(self.static_private)

    def __repr__(self) -> str:
        return f"Identity({encode_key(self.public_key)})"


def node_id(public_key: bytes) -> bytes:
    """8 bytes: a node's name in record headers."""
    digest = hashlib.blake2b(public_key, digest_size=32, person=b"vsw node")
    return digest.digest()[:NODE_ID_BYTES]


def static_public(public_key: bytes, where: str = "") -> bytes:
    """The X25519 image of an Ed25519 public key, 32 bytes.

    Raises ConfigError for what is no point of the curve, has low order, or lies outside the
    main subgroup: with such a key the shared secrets would be known to everybody.
    """
    try:
        image: bytes = bindings.crypto_sign_ed25519_pk_to_curve25519(public_key)
    except (RuntimeError, ValueError):
        raise ConfigError(
            "the public key is no valid Ed25519 key",
            "copy the line that vsw keygen printed on that node",
            where,
        ) from None
    return image


def encode_key(key: bytes) -> str:
    """44 characters of base64 for 32 bytes."""
    return base64.b64encode(key).decode("ascii")


def decode_key(text: str, what: str, where: str = "") -> bytes:
    """32 bytes from 44 characters of base64.  what: the key's name in the message."""
    remedy = f"a {what} is 32 bytes in base64, 44 characters, as vsw keygen prints them"
    try:
        key = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ConfigError(f"the {what} is not base64", remedy, where) from None
    if len(key) != KEY_BYTES:
        raise ConfigError(f"the {what} has {len(key)} bytes instead of 32", remedy, where)
    if encode_key(key) != text:
        raise ConfigError(f"the {what} has stray bits at its end", remedy, where)
    return key


def public_key(text: str, where: str = "") -> bytes:
    """A peer's Ed25519 public key from the configuration, checked to be usable."""
    key = decode_key(text, "public key", where)
    static_public(key, where)
    return key
