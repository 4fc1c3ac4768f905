"""What a person asks of the mesh: pings and traces, each a small machine of the same shape.

Sans-IO: the owner carries out requests(), says of each sent() or unsent(), passes in answers, and
calls poll() when next_timer() is due.  An inquiry without a timer is over.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from mesh.relay import Path

MS = 1_000_000
S = 1000 * MS
SESSION_WAIT_NS = 6 * S  # for keys: a second initiation goes out after five
SESSION_RETRY_NS = 100 * MS


class Unsent(Enum):
    """Why a request was not sent; the value is for people."""

    NO_SESSION = "no session"
    TOO_LONG = "too long for the device"
    FAILED = "the kernel refused it"


class TraceEnd(Enum):
    """Why a trace went no further than the node that answers; enum trace_end."""

    REACHED = 1
    HOPS = 2
    NO_SESSION = 3
    UNKNOWN = 4


@dataclass(frozen=True, slots=True)
class SendPing:
    """A probe, as large as an IP packet of ip_bytes, by the way in use."""

    id: int
    ip_bytes: int


@dataclass(frozen=True, slots=True)
class SendTrace:
    id: int
    hops_left: int


Request = SendPing | SendTrace


@dataclass(frozen=True, slots=True)
class PingAnswer:
    """size_bytes: that arrived there."""

    id: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class TraceAnswer:
    """public_key: whose it says to be.  by: of the neighbour who gave it to us, which is proved."""

    id: int
    end: TraceEnd
    public_key: bytes
    by: bytes = b""


@dataclass(frozen=True, slots=True)
class Ponged:
    """A ping's result.  rtt_ns: None without an answer, and lost says why."""

    number: int
    ip_bytes: int
    path: Path | None
    rtt_ns: int | None
    lost: str | None = None


@dataclass(frozen=True, slots=True)
class Hop:
    """A node on the way; public_key, rtt_ns: None when it did not answer.  proved: it is the
    neighbour itself who says so."""

    number: int
    public_key: bytes | None
    rtt_ns: int | None
    proved: bool


@dataclass(frozen=True, slots=True)
class WayEnd:
    """The last result of a trace.  public_key: at which node, where that is known."""

    reason: str
    public_key: bytes | None


Result = Ponged | Hop | WayEnd
NewId = Callable[[], int]


class Inquiry(ABC):
    """now: monotonic ns, never decreasing."""

    def __init__(self, new_id: NewId) -> None:
        self._new_id = new_id
        self._requests: list[Request] = []
        self._results: list[Result] = []

    def requests(self) -> list[Request]:
        """And forgets them."""
        drained, self._requests = self._requests, []
        return drained

    def results(self) -> list[Result]:
        """And forgets them."""
        drained, self._results = self._results, []
        return drained

    @abstractmethod
    def next_timer(self) -> int | None: ...
    @abstractmethod
    def poll(self, now: int) -> None: ...
    @abstractmethod
    def sent(self, number: int, path: Path | None, now: int) -> None: ...
    @abstractmethod
    def unsent(self, number: int, why: Unsent, now: int) -> None: ...
    @abstractmethod
    def answered(self, answer: PingAnswer | TraceAnswer, received: int, now: int) -> None: ...
