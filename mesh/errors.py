"""The mesh's errors.

Who is to blame decides the class: we ourselves (LocalError, a bug), whoever sent a datagram
(RemoteError, counted and forgotten), or whoever wrote the configuration (ConfigError).
"""

from __future__ import annotations

from enum import Enum


class MeshError(Exception):
    """Anything that goes wrong in this package."""


class LocalError(MeshError):
    """An object was used against its rules: a mistake in this program."""


class ConfigError(MeshError):
    """The user's mistake: what is wrong, where, and what to do about it."""

    def __init__(self, what: str, remedy: str, where: str = "") -> None:
        self.what = what
        self.remedy = remedy
        self.where = where
        super().__init__(f"{where}: {what}; {remedy}" if where else f"{what}; {remedy}")


class Refusal(Enum):
    """Why a datagram was refused.  The values are the names of the counters."""

    LENGTH = "wrong_length"
    TYPE = "unknown_type"
    RESERVED = "reserved_not_zero"
    MAC1 = "wrong_mac1"
    LOW_ORDER = "low_order_point"
    DECRYPTION = "not_decrypted"
    UNKNOWN_PEER = "unknown_peer"
    STALE = "stale_timestamp"
    TOO_SOON = "initiated_too_often"
    CIPHER = "no_common_cipher"
    PAYLOAD = "malformed_payload"
    UNKNOWN_INDEX = "unknown_index"
    COOKIE = "unexpected_cookie"


class RemoteError(MeshError):
    """The sender of a datagram broke the protocol.  Never leaves receive_datagram()."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.value)
