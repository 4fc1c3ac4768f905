"""A mesh member: agrees on keys with its peers and keeps them fresh.

Sans-IO: the owner passes in what arrived and what time it is, and carries out events().
Datagrams from strangers change nothing here, and nothing is remembered about who sent them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from mesh import cookie, handshake, wire
from mesh.address import Address
from mesh.config import PeerConfig
from mesh.errors import Refusal, RemoteError
from mesh.events import (
    Event,
    PathChanged,
    PeerAdded,
    PeerPlaced,
    PeerRemoved,
    RemoveKeypair,
    SendKeepalive,
    SendThrough,
    SessionReady,
    Traffic,
)
from mesh.handshake import Keys, PeerKeys, Trigger
from mesh.identity import Identity, Rng, node_id
from mesh.indexes import Indexes
from mesh.membership import members
from mesh.peer import (
    GIVE_UP_NS,
    INITIATION_INTERVAL_NS,
    REJECT_AFTER_NS,
    RETRY_JITTER_NS,
    RETRY_NS,
    STALE_HINT_NS,
    Peer,
    PeerStatus,
    Session,
    install_event,
    make_session,
)
from mesh.relay import Path, Through
from mesh.roster import Roster
from mesh.timers import Timers
from mesh.wire import Cipher


class Node:
    """A mesh member, without sockets, clocks or randomness of its own.

    Call order: after any input, drain datagrams_to_send() and events(), then arm the timer at
    next_timer().  now: int, monotonic nanoseconds, never decreasing.
    """

    def __init__(
        self,
        identity: Identity,
        peers: Collection[PeerConfig],
        rng: Rng,
        now: int,
        *,
        wall_offset_ns: int,
        ciphers: tuple[Cipher, ...] = (Cipher.AES_256_GCM,),
    ) -> None:
        """wall_offset_ns: the wall clock's time since 1970, less now.

        ciphers: those that the data plane has, the preferred one first.
        """
        self._identity = identity
        self._rng = rng
        self._wall_offset_ns = wall_offset_ns
        self._ciphers = ciphers
        self._receiver = cookie.Receiver(identity.public_key)
        self._peers = Roster()
        self._indexes: Indexes[Peer] = Indexes(rng)
        self._timers = Timers()
        self._datagrams: list[tuple[bytes, Address]] = []
        self._events: list[Event] = []
        self.refused: Counter[Refusal] = Counter()
        self.apply(peers, now)

    # ---- outputs

    def datagrams_to_send(self) -> list[tuple[bytes, Address]]:
        """And forgets them."""
        drained, self._datagrams = self._datagrams, []
        return drained

    def events(self) -> list[Event]:
        """And forgets them."""
        drained, self._events = self._events, []
        return drained

    def next_timer(self) -> int | None:
        """When to call poll() next."""
        return self._timers.next()

    def peer_ids(self) -> dict[bytes, int]:
        """Public key to peer number."""
        return self._peers.ids()

    def session_indexes(self) -> list[int]:
        """Local indexes of all installed sessions."""
        return [s.local_index for peer in self._peers for s in peer.sessions()]

    def peer_of(self, local_index: int) -> int | None:
        """The number of the peer that has the session, or None."""
        peer = self._indexes.owner(local_index)
        return peer.id if peer is not None else None

    def status(self, now: int) -> list[PeerStatus]:
        return [peer.status(now) for peer in self._peers]

    # ---- configuration

    def apply(self, configs: Collection[PeerConfig], now: int) -> None:
        """Make these the peers.  Sessions of those that stay as they are stay.

        Raises ConfigError, and then nothing has changed.
        """
        known = {peer.keys.public_key: peer.keys for peer in self._peers}
        wanted = members(self._identity, configs, known)
        for peer in self._peers:
            config, keys = wanted.get(peer.keys.public_key, (None, None))
            if config is None or keys is None:
                self._remove_peer(peer)
            elif keys.preshared_key != peer.keys.preshared_key:
                # Sessions made with another key must not outlive it.
                self._remove_peer(peer)
            else:
                moved = config.endpoints != peer.config.endpoints
                peer.config = config
                if moved:
                    peer.endpoint = None
                    self._need(peer, now)
        for public_key, (config, keys) in wanted.items():
            if self._peers.by_public(public_key) is None:
                self._add_peer(config, keys, now)
        for peer in self._peers:
            self._place(peer, now)

    def _add_peer(self, config: PeerConfig, keys: PeerKeys, now: int) -> None:
        peer = self._peers.add(config, keys)
        self._events.append(PeerAdded(peer.id, node_id(keys.public_key)))
        self._need(peer, now)

    def _remove_peer(self, peer: Peer) -> None:
        if peer.attempt is not None:
            self._indexes.release(peer.attempt.local_index)
        self._drop(peer, peer.sessions())
        self._timers.set(peer.id, None)
        self._peers.remove(peer)
        self._events.append(PeerRemoved(peer.id))
        for other in self._peers:
            if other.endpoint == Through(peer.id):
                other.endpoint = None

    def _place(self, peer: Peer, now: int) -> None:
        """Behind the neighbour that its configuration names."""
        via = peer.config.via
        neighbour = self._peers.by_public(via) if via is not None else None
        if peer.via == (neighbour.id if neighbour is not None else None):
            return
        self._peers.place(peer, neighbour)
        self._events.append(PeerPlaced(peer.id, peer.via))
        if peer.config.endpoints and isinstance(peer.endpoint, Address):
            return  # where it was found it is still
        peer.endpoint = None
        if peer.via is not None and not peer.config.endpoints:
            self._events.append(PathChanged(peer.id, Through(peer.via)))
        self._need(peer, now)

    def _move(self, peer: Peer, path: Path) -> None:
        """The peer proved to be there."""
        if peer.endpoint != path:
            peer.endpoint = path
            self._events.append(PathChanged(peer.id, path))

    # ---- inputs: datagrams

    def receive_datagram(self, data: bytes, addr: Path, now: int) -> None:
        """One handshake message.  What is wrong with it is counted in .refused.

        addr: its source, or who passed it on.
        """
        try:
            match wire.parse(data):
                case wire.Initiation() as initiation:
                    self._receive_initiation(initiation, data, addr, now)
                case wire.Response() as response:
                    self._receive_response(response, data, addr, now)
                case wire.CookieReply() as reply:
                    self._receive_cookie(reply, now)
        except RemoteError as error:
            self.refused[error.refusal] += 1

    def _receive_initiation(
        self, message: wire.Initiation, data: bytes, addr: Path, now: int
    ) -> None:
        if not self._receiver.mac1_ok(data):
            raise RemoteError(Refusal.MAC1)
        responder = handshake.open_initiation(self._identity, message)
        peer = self._peers.by_static(responder.remote_static)
        if peer is None:
            raise RemoteError(Refusal.UNKNOWN_PEER)
        offer = responder.read_payload(peer.keys.static_shared)
        timestamp, offered = wire.parse_offer(offer)
        if peer.stale(timestamp, now):
            self._hint_stale(peer, addr, now)
            raise RemoteError(Refusal.STALE)
        if peer.answered_at is not None and now - peer.answered_at < INITIATION_INTERVAL_NS:
            raise RemoteError(Refusal.TOO_SOON)
        cipher = next((c for c in self._ciphers if c in offered), None)
        if cipher is None:
            raise RemoteError(Refusal.CIPHER)
        index = self._indexes.free()
        body, keys = handshake.answer(
            responder,
            peer.keys,
            remote_index=message.sender,
            local_index=index,
            cipher=cipher,
            rng=self._rng,
        )

        # Success: from here on, nothing fails.
        peer.advance(Trigger.ANSWERED)
        peer.timestamp_answered = timestamp
        peer.answered_at = now
        self._indexes.claim(index, peer)
        session = make_session(
            keys, initiator=False, created=now, endpoint=addr, timestamp=timestamp
        )
        self._drop(peer, peer.install_answered(session))
        self._install(peer, session, keys)
        self._send(peer, peer.macs.close(body, now), addr)
        self._arm(peer)

    def _hint_stale(self, peer: Peer, addr: Path, now: int) -> None:
        """The peer's clock may have been set back while it was down: then it cannot begin, so we
        do.  Who replays an initiation gains no more than this handshake, and one datagram of the
        same length to an address of its choice."""
        if now - peer.completed_at >= STALE_HINT_NS or peer.current is None:
            peer.hint = addr
            self._need(peer, now)

    def _receive_response(self, message: wire.Response, data: bytes, addr: Path, now: int) -> None:
        if not self._receiver.mac1_ok(data):
            raise RemoteError(Refusal.MAC1)
        peer = self._indexes.owner(message.receiver)
        attempt = peer.attempt if peer else None
        if peer is None or attempt is None or attempt.local_index != message.receiver:
            raise RemoteError(Refusal.UNKNOWN_INDEX)
        keys = handshake.finish(attempt, message)

        # Success: from here on, nothing fails.
        self._move(peer, addr)
        if peer.yields(self._identity.public_key):
            # Stay as we are: if the peer's key is not confirmed in time, the timer tries again.
            self._indexes.release(attempt.local_index)
            peer.attempt = None
            return
        peer.advance(Trigger.RESPONSE)
        peer.end_attempt()
        peer.completed_at = now
        session = make_session(keys, initiator=True, created=now, endpoint=addr)
        self._drop(peer, peer.install_initiated(session))
        self._install(peer, session, keys)
        self._events.append(SessionReady(peer.id, session.local_index, addr))
        self._events.append(SendKeepalive(peer.id))  # confirms the key to the peer
        self._arm(peer)
        self._reach_behind(peer, now)

    def _receive_cookie(self, message: wire.CookieReply, now: int) -> None:
        peer = self._indexes.owner(message.receiver)
        attempt = peer.attempt if peer else None
        if peer is None or attempt is None or attempt.local_index != message.receiver:
            raise RemoteError(Refusal.UNKNOWN_INDEX)
        again = not peer.macs.has_cookie(now)
        peer.macs.open_cookie(message.nonce, message.sealed, now)
        if again and peer.attempt_target is not None:
            # Only then: two nodes must not answer each other without end.
            message_again = peer.macs.close(attempt.message, now)
            self._send(peer, message_again, peer.attempt_target)

    # ---- inputs: the data plane

    def need_session(self, peer_id: int, now: int) -> None:
        """A packet for the peer was dropped because there is no key."""
        peer = self._peers.get(peer_id)
        if peer is None:
            return
        # With a key of a moment ago the report is only late; with an older one the data plane
        # has lost it or used it up.
        if peer.current is None or now - peer.completed_at >= RETRY_NS:
            self._need(peer, now)

    def session_confirmed(self, local_index: int, now: int) -> None:
        """The first authentic record came in under a key that we answered with."""
        peer = self._indexes.owner(local_index)
        session = peer.session(local_index) if peer else None
        if peer is None or session is None:
            return
        # Its initiation is no replay now, and can be one from now on.
        peer.timestamp_confirmed = max(peer.timestamp_confirmed, session.timestamp)
        if session is not peer.next:
            return
        if session.overtaken:
            self._drop(peer, peer.promote_next())
            self._arm(peer)
            return
        peer.advance(Trigger.CONFIRMED)
        if peer.attempt is not None:
            self._indexes.release(peer.attempt.local_index)
        peer.end_attempt()
        peer.completed_at = now
        self._move(peer, session.endpoint)
        self._drop(peer, peer.promote_next())
        self._events.append(SessionReady(peer.id, local_index, session.endpoint))
        self._arm(peer)
        self._reach_behind(peer, now)

    def endpoint_changed(self, local_index: int, addr: Path, now: int) -> None:
        """The newest authentic record of the session came from elsewhere."""
        peer = self._indexes.owner(local_index)
        session = peer.session(local_index) if peer else None
        if peer is None or session is None:
            return
        session.endpoint = addr
        self._move(peer, addr)
        self._arm(peer)

    def session_lost(self, local_index: int, now: int) -> None:
        """The data plane could not install or keep the session."""
        peer = self._indexes.owner(local_index)
        session = peer.session(local_index) if peer else None
        if peer is None or session is None:
            return
        peer.take_out(session)
        self._indexes.release(local_index)
        self._arm(peer)

    def traffic(self, reports: Mapping[int, Traffic], now: int) -> None:
        """What all sessions did, by local index; about once a second."""
        for peer in self._peers:
            for session in peer.sessions():
                session.traffic = reports.get(session.local_index, session.traffic)
            keepalive_due, worn = peer.judge_traffic(now)
            if keepalive_due and peer.current is not None:
                self._events.append(SendKeepalive(peer.id))
            if worn:
                self._need(peer, now)

    # ---- timers

    def poll(self, now: int) -> None:
        """Run every timer that is due."""
        while (peer_id := self._timers.take(now)) is not None:
            peer = self._peers.get(peer_id)
            assert peer is not None, "a removed peer has no timer"
            self._run_timers(peer, now)
            self._arm(peer)

    def _run_timers(self, peer: Peer, now: int) -> None:
        for session in peer.sessions():
            if now >= session.created + REJECT_AFTER_NS:
                peer.take_out(session)
                self._drop(peer, [session])
        if peer.retry_at is not None and now >= peer.retry_at:
            if now - peer.series_began >= GIVE_UP_NS or not peer.candidates():
                peer.advance(Trigger.GIVE_UP)
                self._abandon(peer)
                peer.end_attempt()
            else:
                peer.advance(Trigger.RETRY)
                self._initiate(peer, now)
        rekey_at = peer.rekey_at()
        if rekey_at is not None and now >= rekey_at:
            self._need(peer, now)

    def _arm(self, peer: Peer) -> None:
        self._timers.set(peer.id, peer.deadline())

    # ---- initiating

    def _need(self, peer: Peer, now: int) -> None:
        if peer.under_way or not peer.candidates():
            return
        peer.advance(Trigger.NEED)
        peer.series_began = now
        self._initiate(peer, now)
        self._arm(peer)

    def _initiate(self, peer: Peer, now: int) -> None:
        timestamp = max(now + self._wall_offset_ns, peer.timestamp_sent + 1)
        self._abandon(peer)
        index = self._indexes.free()
        attempt = handshake.begin(
            self._identity,
            peer.keys,
            local_index=index,
            timestamp_ns=timestamp,
            ciphers=self._ciphers,
            rng=self._rng,
        )
        self._indexes.claim(index, peer)
        peer.attempt = attempt
        peer.attempt_sent = now
        peer.timestamp_sent = timestamp
        target = peer.next_target()
        jitter = int.from_bytes(self._rng.randbytes(4), "little") * RETRY_JITTER_NS >> 32
        peer.retry_at = now + RETRY_NS + jitter
        self._send(peer, peer.macs.close(attempt.message, now), target)

    def _abandon(self, peer: Peer) -> None:
        if peer.attempt is not None:
            self._indexes.release(peer.attempt.local_index)
            peer.attempt = None

    def _reach_behind(self, neighbour: Peer, now: int) -> None:
        """There is a key for the neighbour: what went to those behind it before had no way."""
        for peer in self._peers.behind(neighbour):
            if peer.current is not None or peer.asked_at_endpoint:
                continue
            if peer.under_way:
                peer.advance(Trigger.RETRY)
                self._initiate(peer, now)
                self._arm(peer)
            else:
                self._need(peer, now)

    def _send(self, peer: Peer, message: bytes, path: Path) -> None:
        if isinstance(path, Through):
            self._events.append(SendThrough(path.peer, node_id(peer.keys.public_key), message))
        else:
            self._datagrams.append((message, path))

    # ---- keys

    def _install(self, peer: Peer, session: Session, keys: Keys) -> None:
        self._events.append(install_event(peer, session, keys))

    def _drop(self, peer: Peer, sessions: list[Session]) -> None:
        for session in sessions:
            self._indexes.release(session.local_index)
            self._events.append(RemoveKeypair(peer.id, session.local_index))
