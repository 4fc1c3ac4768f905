"""Two mesh nodes in one hand, every datagram in the other.  A network is a list; time a number."""

from ipaddress import ip_address
from random import Random

from mesh.address import Address
from mesh.config import PeerConfig
from mesh.events import Event, InstallKeypair, SendKeepalive
from mesh.handshake import State
from mesh.identity import Identity
from mesh.node import Node

S = 1_000_000_000
WALL = 1_700_000_000 * S
STRANGER = Address(ip_address("203.0.113.9"), 9)


class End:
    """A node, its address, and what it said so far."""

    def __init__(self, number: int, rng: Random) -> None:
        self.identity = Identity(bytes([number]) * 32)
        self.address = Address(ip_address(f"192.0.2.{number}"), 7400)
        self.rng = rng
        self.seen: list[Event] = []
        self.node: Node

    def start(self, peers: list[PeerConfig], now: int = 0, **arguments: object) -> None:
        self.node = Node(
            self.identity,
            peers,
            self.rng,
            now,
            **{"wall_offset_ns": WALL, **arguments},
        )

    def config(self, *endpoints: Address, psk: bytes | None = None) -> PeerConfig:
        """As others know it."""
        return PeerConfig(self.identity.public_key, endpoints, preshared_key=psk)

    def out(self) -> list[tuple[bytes, Address]]:
        return self.node.datagrams_to_send()

    def events(self) -> list[Event]:
        fresh = self.node.events()
        self.seen += fresh
        return fresh

    def installed(self) -> list[InstallKeypair]:
        self.events()
        return [e for e in self.seen if isinstance(e, InstallKeypair)]

    @property
    def state(self) -> State:
        return self.node.status(0)[0].state


class Two:
    """a knows where b is; b learns where a is."""

    def __init__(self, *, b_knows_a: bool = False) -> None:
        self.rng = Random(1)
        # The smaller public key wins when both initiate: let that be a.
        ends = sorted((End(n, self.rng) for n in (1, 2)), key=lambda e: e.identity.public_key)
        self.a, self.b = ends
        self.now = 0
        self.b.start([self.a.config(*([self.a.address] if b_knows_a else []))])
        self.a.start([self.b.config(self.b.address)])

    def deliver(self, source: End, target: End) -> list[bytes]:
        """Everything that source has to say; returns it."""
        datagrams = source.out()
        for data, to in datagrams:
            assert to == target.address
            target.node.receive_datagram(data, source.address, self.now)
        return [data for data, _ in datagrams]

    def settle(self) -> None:
        """No loss: both talk until neither has more to say; then keys are confirmed."""
        while self.deliver(self.a, self.b) or self.deliver(self.b, self.a):
            pass
        self.confirm()

    def confirm(self) -> None:
        """As the data plane does on the keepalive that follows a handshake."""
        for end, other in ((self.a, self.b), (self.b, self.a)):
            if any(isinstance(e, SendKeepalive) for e in end.events()):
                sealed_with = [i for i in end.installed() if i.initiator][-1]
                other.node.session_confirmed(sealed_with.remote_index, self.now)

    def connected(self) -> "Two":
        self.settle()
        assert (self.a.state, self.b.state) == (State.READY, State.READY)
        self.a.events()
        self.b.events()
        return self

    def wait(self, seconds: float) -> None:
        self.now += int(seconds * S)
        self.a.node.poll(self.now)
        self.b.node.poll(self.now)
