"""A network of complete nodes, without sockets or clocks: one heap of what happens when.

Everything is drawn from one Random(seed): the same seed gives the same trace.  Which faults
there are at all is drawn first (swarm testing: a fault that never happens leaves room for
others).  Safety is checked at every step: Ledger is told of each, check_host() looks after it.
"""

import hashlib
import heapq
from collections import deque
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from random import Random

from mesh.address import Address
from mesh.config import PeerConfig
from mesh.events import (
    Event,
    InstallKeypair,
    PathChanged,
    PeerAdded,
    PeerPlaced,
    PeerRemoved,
    RemoveKeypair,
    SendKeepalive,
    SendThrough,
    SessionReady,
)
from mesh.identity import Identity
from mesh.node import Node
from mesh.relay import Path, Through
from mesh.wire import Cipher
from tests.sim.gate import Gate
from tests.sim.ledger import Ledger, check_host
from tests.sim.options import MS, Options, S
from tests.sim.plane import RELAY_HOPS, Plane, Record, Relayed

REPORT_NS = 2 * S
CIPHERS = (Cipher.AES_256_GCM,)
MIXED_CIPHERS = (
    CIPHERS,
    (*CIPHERS, Cipher.CHACHA20_POLY1305),
    (Cipher.CHACHA20_POLY1305, *CIPHERS),
)

Message = bytes | Record | Relayed


@dataclass
class Host:
    """clock_offset: its monotonic clock, less the network's."""

    number: int
    identity: Identity
    address: Address
    node: Node
    plane: Plane
    gate: Gate
    clock_offset: int = 0
    armed: int | None = None  # network's time
    got: dict[int, int] = field(default_factory=dict)  # sender's number -> when, network's time
    numbers: dict[int, int] = field(default_factory=dict)  # the node's number of a peer -> ours


class Network:
    def __init__(self, seed: int, options: Options | None = None) -> None:
        self.rng = Random(seed)
        self.options = options or Options.draw(self.rng)
        self.now = 1 * S
        self.faults = True
        self.heap: list[tuple[int, int, str, tuple]] = []
        self.sequence = 0
        self.digest = hashlib.blake2b(digest_size=16)
        self.log: deque[tuple[int, int, Address, Message] | str] = deque(maxlen=40)
        self.cut: set[tuple[int, int]] = set()
        self.past: deque[tuple[bytes | Relayed, Address, Address]] = deque(maxlen=50)
        self.relayed = 0
        self.loops = 0
        self.cookies = 0
        self.ledger = Ledger()
        identities = [Identity(self.rng.randbytes(32)) for _ in range(self.options.nodes)]
        self.homes = [Address(IPv4Address(f"10.0.0.{i + 1}"), 7400) for i in range(len(identities))]
        self.psk = self.rng.randbytes(32) if self.options.preshared else None
        self.identities = identities
        self.hosts: list[Host] = []
        for number, identity in enumerate(identities):
            home, node, gate = self.homes[number], self.start(number), self.gate(number)
            self.hosts.append(Host(number, identity, home, node, Plane(), gate))
        self.by_address = {host.address: host for host in self.hosts}
        self.number_of = {h.identity.public_key: h.number for h in self.hosts}
        self.number_of_node = {h.identity.node_id: h.number for h in self.hosts}
        for host in self.hosts:
            self.at(0, "report", host.number)
            if host.number == 0 or not self.options.one_way:
                self.at(self.jitter(self.options.packet_every), "packet", host.number)
            self.drain(host)
            for kind in ("restart", "jump", "roam", "load"):
                self.again(kind, host.number)
        self.again("partition", 0)

    # ---- hosts

    def configs(self, number: int) -> list[PeerConfig]:
        return [
            PeerConfig(identity.public_key, preshared_key=self.psk, **self.way(number, other))
            for other, identity in enumerate(self.identities)
            if other != number
        ]

    def way(self, number: int, other: int) -> dict:
        """To another host: what a configuration says of it."""
        if self.options.one_sided and other < number:
            return {}
        step = 1 if other > number else -1
        between = {"full": other, "star": other if 0 in (number, other) else 0}
        first = between.get(self.options.shape, number + step)
        if first == other:
            return {"endpoints": (self.homes[other],)}
        return {"via": self.identities[first].public_key}

    def start(self, number: int, clock: int | None = None) -> Node:
        # After a restart the wall clock may be anywhere near, also before where it was.
        wall = 1_700_000_000 * S
        if clock is not None and self.options.jump_every:
            wall += self.rng.randrange(-3600 * S, 3600 * S)
        return Node(
            self.identities[number],
            self.configs(number),
            Random(self.rng.getrandbits(64)),
            self.now if clock is None else clock,
            wall_offset_ns=wall,
            ciphers=self.rng.choice(MIXED_CIPHERS) if self.options.mixed else CIPHERS,
        )

    def gate(self, number: int) -> Gate:
        return Gate(self.identities[number].public_key, self.rng.randbytes(32))

    def clock(self, host: Host) -> int:
        return self.now + host.clock_offset

    # ---- what happens

    def at(self, delay: int, kind: str, *arguments: object) -> None:
        self.sequence += 1
        heapq.heappush(self.heap, (self.now + delay, self.sequence, kind, arguments))

    def jitter(self, mean: int) -> int:
        return self.rng.randrange(mean // 2, mean + mean // 2)

    def again(self, kind: str, number: int) -> None:
        every = getattr(self.options, f"{kind}_every")
        if every:
            self.at(self.jitter(every), kind, number)

    def run(self, duration: int) -> None:
        end = self.now + duration
        while self.heap and self.heap[0][0] <= end:
            self.now, _, kind, arguments = heapq.heappop(self.heap)
            getattr(self, f"on_{kind}")(*arguments)
        self.now = end

    def on_timer(self, number: int) -> None:
        host = self.hosts[number]
        if host.armed == self.now:
            host.armed = None
        host.node.poll(self.clock(host))
        self.drain(host)

    def on_report(self, number: int) -> None:
        host = self.hosts[number]
        reports = {index: s.traffic() for index, s in host.plane.sessions.items()}
        host.node.traffic(reports, self.clock(host))
        self.drain(host)
        self.at(REPORT_NS, "report", number)

    def on_packet(self, number: int) -> None:
        host = self.hosts[number]
        for peer in host.numbers:
            if not self.send_record(host, peer, empty=False):
                host.node.need_session(peer, self.clock(host))
        self.drain(host)
        self.at(self.jitter(self.options.packet_every), "packet", number)

    def on_restart(self, number: int) -> None:
        self.again("restart", number)
        if not self.faults:
            return
        host = self.hosts[number]
        self.log.append(f"Note over n{number}: restart")
        self.ledger.restarted(number)
        host.plane = Plane()
        host.numbers.clear()
        host.gate = self.gate(number)
        host.clock_offset = self.rng.randrange(1000 * S)
        host.node = self.start(number, self.clock(host))
        self.drain(host)

    def on_jump(self, number: int) -> None:
        self.again("jump", number)
        if self.faults:
            self.log.append(f"Note over n{number}: clock jumps")
            self.hosts[number].clock_offset += self.rng.choice([1, 30, 170, 1000]) * S
            self.on_timer(number)

    def on_roam(self, number: int) -> None:
        self.again("roam", number)
        if self.faults and not (self.options.one_sided is False and self.rng.random() < 0.5):
            host = self.hosts[number]
            # Where others can still begin with it, it comes back to the address they know.
            del self.by_address[host.address]
            port = self.rng.choice([7400, 20000 + self.rng.randrange(1000)])
            host.address = Address(host.address.ip, port)
            self.by_address[host.address] = host

    def on_load(self, number: int) -> None:
        self.again("load", number)
        if self.faults:
            self.hosts[number].gate.loaded = True
            self.at(self.rng.choice([3, 30, 100]) * S, "calm", number)

    def on_calm(self, number: int) -> None:
        self.hosts[number].gate.loaded = False

    def on_partition(self, _: int) -> None:
        self.again("partition", 0)
        if self.faults:
            a, b = self.rng.sample(range(len(self.hosts)), 2)
            self.cut.add((a, b))
            if self.rng.random() < 0.7:
                self.cut.add((b, a))
            self.at(self.rng.choice([3, 30, 200]) * S, "heal", a, b)

    def on_heal(self, a: int, b: int) -> None:
        self.cut -= {(a, b), (b, a)}

    def stop_faults(self) -> None:
        self.faults = False
        self.cut.clear()
        self.past.clear()
        for host in self.hosts:
            host.gate.loaded = False
            del self.by_address[host.address]
            host.address = self.homes[host.number]
            self.by_address[host.address] = host

    # ---- datagrams

    def send(self, host: Host, data: bytes | Record, path: Path, node: bytes) -> None:
        if isinstance(path, Address):
            self.transmit(host, data, path)
        else:
            self.relay(host, path.peer, node, data, RELAY_HOPS)

    def relay(
        self, host: Host, peer: int | None, node: bytes, data: bytes | Record, hops_left: int
    ) -> None:
        """To the next host on the way to the peer."""
        hop = host.plane.hop(peer)
        if isinstance(hop, int):
            host.node.need_session(hop, self.clock(host))
        elif hop is not None:
            assert isinstance(hop.endpoint, Address)
            now = self.clock(host)
            relayed = host.plane.seal_relay(hop, node, data, hops_left, now)
            self.ledger.sealed(relayed, confirmed=hop.confirmed)
            self.transmit(host, relayed, hop.endpoint)

    def transmit(self, host: Host, data: Message, to: Address) -> None:
        options = self.options
        target = self.by_address.get(to)
        number = target.number if target else -1
        text = data if isinstance(data, bytes) else b"%d %d" % (data.receiver, data.counter)
        self.digest.update(b"%d %d %d %b" % (self.now, host.number, number, text))
        self.log.append((self.now, host.number, to, data))
        if not isinstance(data, Record):
            self.past.append((data, host.address, to))
        if target is None or (host.number, target.number) in self.cut:
            return
        copies = 1
        if self.faults:
            if self.rng.random() < options.loss:
                return
            copies += self.rng.random() < options.duplicate
            if isinstance(data, bytes) and self.rng.random() < options.corrupt:
                broken = bytearray(data)
                broken[self.rng.randrange(len(broken))] ^= 1 << self.rng.randrange(8)
                data = bytes(broken)
            if self.past and self.rng.random() < options.replay:
                old, source, old_to = self.rng.choice(self.past)
                spoofed = self.rng.choice([source, Address(IPv4Address("10.9.9.9"), 1)])
                self.at(self.rng.randrange(20 * S), "arrive", old, spoofed, old_to)
        for _ in range(copies):
            delay_max = options.delay_max if self.faults else min(options.delay_max, 50 * MS)
            self.at(self.rng.randrange(delay_max), "arrive", data, host.address, to)

    def on_arrive(self, data: Message, source: Address, to: Address) -> None:
        host = self.by_address.get(to)
        if host is not None:
            self.receive(host, data, source)
            self.drain(host)

    def receive(self, host: Host, data: Message, source: Path) -> None:
        if isinstance(data, bytes):
            self.receive_handshake(host, data, source)
            return
        now = self.clock(host)
        opened = host.plane.open(data, source, now)
        if opened is None:
            return
        session, confirmed, moved = opened
        peer = host.numbers[session.keys.peer]
        self.ledger.opened(data)
        if confirmed:
            self.ledger.confirming(host.number, peer, session.keys)
            host.node.session_confirmed(data.receiver, now)
        if moved:
            host.node.endpoint_changed(data.receiver, source, now)
        if isinstance(data, Relayed):
            self.receive_relayed(host, data, session.keys.peer)
        elif not data.empty:
            host.got[peer] = self.now

    def receive_handshake(self, host: Host, data: bytes, source: Path) -> None:
        now = self.clock(host)
        passes, reply = host.gate.receive(data, source, now)
        if reply is not None and isinstance(source, Address):
            self.cookies += 1
            self.transmit(host, reply, source)
        if not passes:
            return
        before = set(host.node.session_indexes())
        host.node.receive_datagram(data, source, now)
        if data[0] == 1:
            for index in set(host.node.session_indexes()) - before:
                self.ledger.answering(host.number, index, data[8:40])

    def receive_relayed(self, host: Host, data: Relayed, neighbour: int) -> None:
        if data.node == host.identity.node_id:
            self.receive(host, data.message, Through(neighbour))
        elif data.hops_left == 0:
            self.loops += 1
        else:
            self.relayed += 1
            peer = host.plane.nodes.get(data.node)
            self.relay(host, peer, data.node, data.message, data.hops_left - 1)

    def send_record(self, host: Host, peer: int, *, empty: bool) -> bool:
        sealed = host.plane.seal(peer, self.clock(host), empty=empty)
        if sealed is not None:
            record, path, confirmed = sealed
            self.ledger.sealed(record, confirmed=confirmed)
            node = self.hosts[host.numbers[peer]].identity.node_id
            self.send(host, record, path, node)
        return sealed is not None

    def drain(self, host: Host) -> None:
        while events := host.node.events():
            for event in events:
                self.carry_out(host, event)
            check_host(host.node, host.plane, self.clock(host))
        for data, to in host.node.datagrams_to_send():
            host.gate.expect(data, self.clock(host))
            self.transmit(host, data, to)
        timer = host.node.next_timer()
        if timer is not None:
            when = max(self.now, timer - host.clock_offset)
            if host.armed is None or when < host.armed:
                host.armed = when
                self.at(when - self.now, "timer", host.number)

    def carry_out(self, host: Host, event: Event) -> None:
        match event:
            case InstallKeypair():
                self.ledger.installing(host.number, host.numbers[event.peer], event)
                host.plane.install(event)
            case RemoveKeypair(_, local_index):
                host.plane.remove(local_index)
            case SendKeepalive(peer):
                self.send_record(host, peer, empty=True)
            case PeerAdded(peer, node_id):
                host.plane.nodes[node_id] = peer
                host.numbers[peer] = self.number_of_node[node_id]
            case PeerPlaced(peer, neighbour):
                host.plane.via[peer] = neighbour
            case SendThrough(neighbour, node_id, data):
                host.gate.expect(data, self.clock(host))
                self.send(host, data, Through(neighbour), node_id)
            case PeerRemoved() | PathChanged() | SessionReady():
                pass

    # ---- liveness

    def silent_pairs(self, since: int) -> list[tuple[int, int]]:
        """(from, to) of all pairs whose packets did not come through after since."""
        return [
            (a.number, b.number)
            for a in self.hosts
            for b in self.hosts
            if a is not b
            and (a.number == 0 or not self.options.one_way)
            and b.got.get(a.number, 0) <= since
        ]

    def split_pairs(self) -> list[tuple[int, int]]:
        """Pairs that seal with keys of different sessions."""
        split = []
        for host in self.hosts:
            for key, peer in host.node.peer_ids().items():
                other = self.hosts[self.number_of[key]]
                back = other.node.peer_ids()[host.identity.public_key]
                mine, its = host.plane.current.get(peer), other.plane.current.get(back)
                if mine and its and mine.keys.send_key != its.keys.receive_key:
                    split.append((host.number, other.number))
        return split

    def mermaid(self) -> str:
        """The last packets as a sequence diagram."""
        lines = ["sequenceDiagram"]
        for entry in self.log:
            if isinstance(entry, str):
                lines.append(f"    {entry}")
                continue
            now, number, to, data = entry
            kind = f"type {data[0]}" if isinstance(data, bytes) else type(data).__name__
            lines.append(f"    n{number}->>{to}: {kind} at {now / S:.3f} s")
        return "\n".join(lines)
