"""What is plugged in now, and the snapshot that says so to the workers."""

import hashlib
from dataclasses import dataclass, field

from vswitch import core
from vswitch.balance import Wish
from vswitch.errors import CoreError
from vswitch.model import Bridge, Config, Network, Port
from vswitch.ports import MeshPlug, Plug

PortName = tuple[str, str]  # bridge, port
MESH: PortName = ("", "mesh")


@dataclass(frozen=True)
class Attached:
    """A started port."""

    port_id: int
    bridge: Bridge
    config: Port
    plug: Plug


@dataclass(frozen=True)
class AttachedMesh:
    """The started mesh."""

    port_id: int
    plug: MeshPlug


@dataclass(frozen=True)
class State:
    """Replaced as a whole; its parts change only by themselves (queues start and stop).

    ids: the number of each port in the data plane, the mesh included.
    """

    config: Config
    ids: dict[PortName, int] = field(default_factory=dict)
    fdbs: dict[str, core.Fdb] = field(default_factory=dict)
    ports: dict[PortName, Attached] = field(default_factory=dict)
    mesh: AttachedMesh | None = None


@dataclass
class Published:
    """What the workers read; freed when they are past it."""

    snapshot: core.Snapshot
    routes: core.Routes

    def close(self) -> None:
        self.snapshot.close()
        self.routes.close()


def number(old: dict[PortName, int], config: Config) -> dict[PortName, int]:
    """An id for each port.  A name keeps its id; the ids of those that leave stay unused for now,
    because what knows them (MAC tables, workers) forgets them later."""
    names = [(bridge.name, port.name) for bridge, port in config.ports()]
    if config.mesh is not None:
        names.append(MESH)
    taken = set(old.values())
    free = (i for i in range(len(taken) + len(names)) if i not in taken)
    return {name: old[name] if name in old else next(free) for name in names}


def build(
    state: State, workers: int, neighbours: core.Neighbours, assigned: dict[object, int]
) -> Published:
    """The snapshot of a state.  assigned: receive queue → worker, of all ports but the mesh."""
    routes = core.Routes(routes_of(state))
    try:
        snapshot = core.Snapshot(workers)
    except CoreError:
        routes.close()
        raise
    published = Published(snapshot, routes)
    try:
        fill(snapshot, state, assigned)
    except CoreError:
        published.close()
        raise
    snapshot.set_routes(routes, neighbours)
    return published


def fill(snapshot: core.Snapshot, state: State, assigned: dict[object, int]) -> None:
    snapshot.set_idle(state.config.workers.idle)
    bridges: dict[str, int] = {}
    for bridge in state.config.bridges:
        index = snapshot.add_bridge(
            state.fdbs[bridge.name], router_mac(state.config, bridge.name), bridge.mtu_bytes
        )
        bridges[bridge.name] = index
        for subnet in bridge.subnets:
            snapshot.add_subnet(index, subnet)
    for attached in state.ports.values():
        snapshot.add_port(attached.plug.c_port, bridges[attached.bridge.name])
    if state.mesh is not None:
        snapshot.add_port(state.mesh.plug.c_port, None)
        for worker, rxqs in enumerate(state.mesh.plug.c_rxqs):
            for rxq in rxqs:
                snapshot.add_rxq(worker, rxq)
    for rxq, worker in assigned.items():
        snapshot.add_rxq(worker, rxq)


def routes_of(state: State) -> list[tuple[Network, int]]:
    """Every prefix with its owner."""
    routes = [
        (network, core.ROUTE_PORT + attached.port_id)
        for attached in state.ports.values()
        for network in attached.config.addresses
    ]
    if state.mesh is None or state.config.mesh is None:
        return routes
    # The mesh withdraws a peer's id before it forgets the peer, and republishes.
    ids = state.mesh.plug.peer_ids
    return routes + [
        (network, core.ROUTE_PEER + ids[peer.public_key])
        for peer in state.config.mesh.peers
        if peer.public_key in ids
        for network in peer.addresses
    ]


def wishes(state: State, cpus: list[int]) -> dict[object, Wish]:
    """Which workers may poll each started queue.  cpus: where the workers are.

    A port that names CPUs is served there only, and these CPUs serve nobody else.
    """
    everywhere = tuple(range(len(cpus)))
    taken = {cpu for attached in state.ports.values() for cpu in attached.config.cpus}
    common = tuple(i for i in everywhere if cpus[i] not in taken)
    wished: dict[object, Wish] = {}
    for attached in state.ports.values():
        own = tuple(i for i in everywhere if cpus[i] in attached.config.cpus)
        # While CPUs change there may be none for a moment.
        wish = Wish(own or common or everywhere, attached.plug.numa_node)
        wished.update(dict.fromkeys(attached.plug.c_rxqs, wish))
    return wished


def router_mac(config: Config, bridge: str) -> bytes:
    """The MAC that a bridge answers with for what lives elsewhere: locally administered, and the
    same after a restart, because guests remember it."""
    name = (config.public_key or b"") + bridge.encode()
    mac = bytearray(hashlib.blake2b(name, digest_size=6, person=b"vsw router mac").digest())
    mac[0] = mac[0] & 0xFC | 0x02
    return bytes(mac)
