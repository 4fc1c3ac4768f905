"""One peer as a Node knows it: its three sessions, its initiation under way, its timers.

Sessions go through three slots.  next: we answered, and wait for a record that proves that the
peer has the key; never sent with.  current: what we send with.  previous: still received with,
because records under it may be on their way.

Both sides may initiate at once, and both handshakes may succeed.  So that one session wins, the
node with the smaller public key keeps its own, and the other drops the answer to its own when it
has answered meanwhile (Peer.yields).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from mesh.address import Address
from mesh.config import PeerConfig
from mesh.cookie import Sender
from mesh.events import InstallKeypair, Traffic
from mesh.handshake import Attempt, Keys, PeerKeys, State, Trigger, advance
from mesh.relay import Path, Through

NS_PER_S = 1_000_000_000
REKEY_AFTER_NS = 120 * NS_PER_S  # by who initiated
REKEY_AFTER_RESPONDER_NS = 140 * NS_PER_S  # by the other, when that one did not
REJECT_AFTER_NS = 180 * NS_PER_S
RETRY_NS = 5 * NS_PER_S
RETRY_JITTER_NS = NS_PER_S // 3
GIVE_UP_NS = 90 * NS_PER_S
KEEPALIVE_NS = 10 * NS_PER_S
UNANSWERED_NS = KEEPALIVE_NS + RETRY_NS
REKEY_AFTER_RECORDS = 1 << 31
REKEY_AFTER_FAILED = 1 << 35  # half of what the cipher's proof allows

INITIATION_INTERVAL_NS = NS_PER_S // 50  # initiations of one peer that we answer
STALE_HINT_NS = 15 * NS_PER_S


@dataclass(slots=True)
class Session:
    """Installed keys, without the keys.

    endpoint: where the handshake came from.  timestamp: of the initiation that we answered.
    overtaken: we answered it, and then agreed on a newer key by an initiation of ours.
    """

    local_index: int
    remote_index: int
    initiator: bool
    created: int
    endpoint: Path
    cipher: str
    timestamp: int = -1
    overtaken: bool = False
    traffic: Traffic = field(default_factory=Traffic)


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """last_handshake_ns: age of the newest confirmed key; None without one."""

    peer: int
    public_key: bytes
    addresses: tuple[IPv4Network | IPv6Network, ...]
    endpoint: Path | None
    state: State
    last_handshake_ns: int | None
    sessions: tuple[Session, ...]


@dataclass(slots=True)
class Peer:
    """endpoint: where the peer last proved to be; tried before the configured ones.

    via: number of the peer that it is behind, as configured.
    """

    id: int
    config: PeerConfig
    keys: PeerKeys
    macs: Sender
    state: State = State.IDLE
    via: int | None = None
    endpoint: Path | None = None
    hint: Path | None = None  # where an initiation came from that we could not answer

    next: Session | None = None
    current: Session | None = None
    previous: Session | None = None

    attempt: Attempt | None = None
    attempt_sent: int = 0
    attempt_target: Path | None = None
    attempts: int = 0  # of this series
    series_began: int = 0
    retry_at: int | None = None

    timestamp_sent: int = 0  # of our last initiation
    timestamp_answered: int = -1  # of the peer's last initiation that we answered
    answered_at: int | None = None
    timestamp_confirmed: int = -1  # of the last one whose keys the peer then used
    completed_at: int = 0  # when keys were last agreed on and confirmed; 0: never
    keepalive_owed_since: int | None = None
    unanswered_since: int | None = None
    silence_judged: int = 0  # the last packet whose lack of an answer was acted on

    def advance(self, trigger: Trigger) -> None:
        self.state = advance(self.state, trigger)

    @property
    def under_way(self) -> bool:
        """Whether an initiation of ours is."""
        return self.state in (State.INITIATING, State.REKEYING)

    @property
    def asked_at_endpoint(self) -> bool:
        """Whether an initiation of ours is under way, and no other node passes it on."""
        return self.under_way and isinstance(self.attempt_target, Address)

    def sessions(self) -> list[Session]:
        return [s for s in (self.next, self.current, self.previous) if s is not None]

    def session(self, local_index: int) -> Session | None:
        return next((s for s in self.sessions() if s.local_index == local_index), None)

    def candidates(self) -> list[Path]:
        """Where to send initiations, in order."""
        via = Through(self.via) if self.via is not None else None
        paths = (self.endpoint, *self.config.endpoints, via, self.hint)
        return list(dict.fromkeys(path for path in paths if path is not None))

    def next_target(self) -> Path:
        """Where the next initiation goes; there are candidates."""
        candidates = self.candidates()
        target = candidates[self.attempts % len(candidates)]
        self.attempt_target = target
        if target == self.hint:
            self.hint = None  # one datagram out for one that came in
        self.attempts += 1
        return target

    def stale(self, timestamp: int, now: int) -> bool:
        """Whether an initiation may be a replay.

        An answer counts for good only once the peer has used its keys.  Otherwise an initiation
        from before a restart of ours, replayed, could lock out a peer whose clock was set back.
        """
        recent = self.answered_at is not None and now - self.answered_at < RETRY_NS
        bar = self.timestamp_answered if recent else self.timestamp_confirmed
        return timestamp <= max(bar, self.timestamp_confirmed)

    def end_attempt(self) -> None:
        """The initiation under way is over; forgets its secrets."""
        self.attempt = None
        self.retry_at = None
        self.attempts = 0
        self.hint = None

    def yields(self, own_public_key: bytes) -> bool:
        """Whether the answer that just came loses against the one that we gave meanwhile.

        Only at the first attempt: a replayed initiation must not make us yield for ever.
        """
        return (
            own_public_key > self.keys.public_key
            and self.attempts == 1
            and self.next is not None
            and self.next.created >= self.attempt_sent
        )

    def status(self, now: int) -> PeerStatus:
        return PeerStatus(
            self.id,
            self.keys.public_key,
            self.config.addresses,
            next(iter(self.candidates()), None),
            self.state,
            now - self.completed_at if self.current else None,
            tuple(self.sessions()),
        )

    # ---- sessions through the slots; each returns those that fell out

    def install_answered(self, session: Session) -> list[Session]:
        """We answered: a key to receive with."""
        dropped, self.next = self.next, session
        return [dropped] if dropped else []

    def install_initiated(self, session: Session) -> list[Session]:
        """We were answered: a key to send with.  Until the peer sees it, it sends with current or,
        if it got our answer, with next, so both stay."""
        if self.next is not None:
            self.next.overtaken = True
        dropped, self.previous, self.current = self.previous, self.current, session
        return [dropped] if dropped else []

    def promote_next(self) -> list[Session]:
        """The peer proved to have the key of next."""
        assert self.next is not None, "it was confirmed"
        dropped = self.previous
        if self.next.overtaken:
            self.previous = self.next  # we send with a newer one
        else:
            self.previous, self.current = self.current, self.next
        self.next = None
        return [dropped] if dropped else []

    def take_out(self, session: Session) -> None:
        """Empties the session's slot."""
        if self.next is session:
            self.next = None
        elif self.previous is session:
            self.previous = None
        elif self.current is session:
            self.current = None
            self.advance(Trigger.EXPIRED)

    # ---- timers

    def rekey_at(self) -> int | None:
        """When the current key has to be replaced; None while that is under way or impossible."""
        if self.current is None or self.under_way or not self.candidates():
            return None
        after = REKEY_AFTER_NS if self.current.initiator else REKEY_AFTER_RESPONDER_NS
        return self.current.created + after

    def deadline(self) -> int | None:
        """The first moment at which something has to be done."""
        moments = [s.created + REJECT_AFTER_NS for s in self.sessions()]
        moments += [t for t in (self.retry_at, self.rekey_at()) if t is not None]
        return min(moments, default=None)

    # ---- what the data plane saw

    def judge_traffic(self, now: int) -> tuple[bool, bool]:
        """(a keepalive is due, the path or key is worn out)."""
        sent = keepalive = received = received_packet = 0
        for session in self.sessions():
            t = session.traffic
            sent = max(sent, t.last_packet_sent)
            keepalive = max(keepalive, t.last_keepalive_sent)
            received = max(received, t.last_received)
            received_packet = max(received_packet, t.last_packet_received)

        if received_packet <= max(sent, keepalive):
            self.keepalive_owed_since = None
        elif self.keepalive_owed_since is None:
            self.keepalive_owed_since = received_packet
        owed = self.keepalive_owed_since
        keepalive_due = owed is not None and now - owed >= KEEPALIVE_NS
        if keepalive_due:
            self.keepalive_owed_since = None

        if sent <= max(received, self.completed_at, self.silence_judged):
            self.unanswered_since = None
        elif self.unanswered_since is None:
            self.unanswered_since = sent
        silent = self.unanswered_since
        worn = silent is not None and now - silent >= UNANSWERED_NS
        if self.current is not None:
            worn |= self.current.traffic.sent_records >= REKEY_AFTER_RECORDS
            worn |= self.current.traffic.failed_records >= REKEY_AFTER_FAILED
        if worn:
            self.unanswered_since = None
            self.silence_judged = sent
        return keepalive_due, worn


def make_session(
    keys: Keys, *, initiator: bool, created: int, endpoint: Path, timestamp: int = -1
) -> Session:
    return Session(
        keys.local_index,
        keys.remote_index,
        initiator,
        created,
        endpoint,
        keys.cipher.name,
        timestamp,
    )


def install_event(peer: Peer, session: Session, keys: Keys) -> InstallKeypair:
    return InstallKeypair(
        peer.id,
        keys.local_index,
        keys.remote_index,
        keys.send_key,
        keys.receive_key,
        keys.relay_send_key,
        keys.relay_receive_key,
        session.initiator,
        session.endpoint,
        keys.cipher,
    )
