"""Pings and traces under way in the daemon: each given the data plane, and somebody to tell.

Owner: the control thread.  What is asked, and when, is decided in ping.py and trace.py.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from mesh.core import MeshCore, MeshCoreError, Punt
from mesh.errors import ConfigError
from mesh.identity import Rng
from mesh.inquiry import (
    Inquiry,
    PingAnswer,
    Result,
    SendPing,
    SendTrace,
    TraceAnswer,
    Unsent,
)
from mesh.node import Node
from mesh.paths import PROBE_IDS, Paths
from mesh.ping import Ping
from mesh.relay import Path, Through
from mesh.trace import Trace

log = logging.getLogger("vsw.mesh")

INQUIRIES_MAX = 8  # at once; together fewer answers than the data plane hands up
Tell = Callable[[Result | None], None]


@dataclass(frozen=True, slots=True)
class _Running:
    peer: int
    inquiry: Inquiry
    tell: Tell


class Inquiries:
    """After any input, call carry_out() and arm a timer at next_timer()."""

    def __init__(self, core: MeshCore, node: Node, paths: Paths, rng: Rng) -> None:
        self._core = core
        self._node = node
        self._paths = paths
        self._rng = rng
        self._running: dict[int, _Running] = {}
        self._next = 0

    # ---- what people want

    def ping(
        self, public_key: bytes, tell: Tell, *, count: int | None, interval_ns: int, ip_bytes: int
    ) -> int:
        """tell: gets each result, and None at the end.  Returns what stop() takes.

        Raises ConfigError: no such peer, or too many inquiries.
        """
        now = time.monotonic_ns()
        ping = Ping(self._probe_id, now, count=count, interval_ns=interval_ns, ip_bytes=ip_bytes)
        return self._start(public_key, ping, tell)

    def trace(self, public_key: bytes, tell: Tell) -> int:
        """As ping()."""
        trace = Trace(self._trace_id, time.monotonic_ns(), target=public_key)
        return self._start(public_key, trace, tell)

    def _start(self, public_key: bytes, inquiry: Inquiry, tell: Tell) -> int:
        peer = self._node.peer_ids().get(public_key)
        if peer is None:
            raise ConfigError("this node has no such peer", "name one that vsw mesh peers shows")
        if len(self._running) >= INQUIRIES_MAX:
            raise ConfigError(
                f"{INQUIRIES_MAX} pings and traces are under way already", "wait for one to end"
            )
        self._next += 1
        self._running[self._next] = _Running(peer, inquiry, tell)
        return self._next

    def stop(self, number: int) -> None:
        """Nothing more is told.  Of one that has ended: does nothing."""
        self._running.pop(number, None)

    def peer_removed(self, peer: int) -> None:
        for number, running in list(self._running.items()):
            if running.peer == peer:
                self._end(number)

    def close(self) -> None:
        for number in list(self._running):
            self._end(number)

    def _end(self, number: int) -> None:
        self._running.pop(number).tell(None)

    # ---- identifiers

    def _probe_id(self) -> int:
        """None that Paths uses."""
        return PROBE_IDS + int.from_bytes(self._rng.randbytes(4), "little") % PROBE_IDS

    def _trace_id(self) -> int:
        """Nobody but the nodes on the way can answer."""
        return int.from_bytes(self._rng.randbytes(8), "little")

    # ---- inputs

    def poll(self, now: int) -> None:
        for running in self._running.values():
            running.inquiry.poll(now)

    def next_timer(self) -> int | None:
        timers = (running.inquiry.next_timer() for running in self._running.values())
        return min((timer for timer in timers if timer is not None), default=None)

    def probe_answered(self, peer: int, probe: int, size_bytes: int, received: int) -> None:
        self._answered(PingAnswer(probe, size_bytes), received, of=peer)

    def trace_punted(self, punt: Punt) -> None:
        received, answer = punt.trace_reply
        by = self._node.peer_of(punt.id)
        keys = {number: key for key, number in self._node.peer_ids().items()}
        if by is not None:
            self._answered(replace(answer, by=keys[by]), received)

    def _answered(
        self, answer: PingAnswer | TraceAnswer, received: int, of: int | None = None
    ) -> None:
        """of: only what is asked of that peer."""
        now = time.monotonic_ns()
        for running in self._running.values():
            if of is None or running.peer == of:
                running.inquiry.answered(answer, received, now)

    # ---- outputs

    def carry_out(self) -> bool:
        """Whether anything was asked for."""
        done = False
        for number, running in list(self._running.items()):
            while requests := running.inquiry.requests():
                done = True
                for request in requests:
                    self._send(running, request)
            for result in running.inquiry.results():
                running.tell(result)
            if running.inquiry.next_timer() is None:
                self._end(number)
        return done

    def _send(self, running: _Running, request: SendPing | SendTrace) -> None:
        way = self._paths.in_use(running.peer)
        now = time.monotonic_ns()
        try:
            match request:
                case SendPing():
                    if way is None:
                        self._need_session(running.peer, None)
                        running.inquiry.unsent(request.id, Unsent.NO_SESSION, now)
                        return
                    self._core.send_probe(way[0], way[1], request.id, request.ip_bytes)
                case SendTrace():
                    self._core.send_trace(running.peer, request.hops_left, request.id)
        except MeshCoreError as error:
            log.debug("%s", error)
            if error.errno_ in (errno.ENOKEY, errno.ENOENT, errno.EKEYEXPIRED):
                self._need_session(running.peer, way[1] if way else None)
                running.inquiry.unsent(request.id, Unsent.NO_SESSION, now)
            else:
                too_long = error.errno_ == errno.EMSGSIZE
                why = Unsent.TOO_LONG if too_long else Unsent.FAILED
                running.inquiry.unsent(request.id, why, now)
        else:
            running.inquiry.sent(request.id, way[1] if way else None, now)

    def _need_session(self, peer: int, path: Path | None) -> None:
        """With the peer, or with who is in between."""
        lacking = path.peer if isinstance(path, Through) else peer
        self._node.need_session(lacking, time.monotonic_ns())
