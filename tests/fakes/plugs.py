"""Plugs that are not real, around C ports that are; and configurations made of few words."""

import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_network

from mesh.address import Address
from mesh.config import MeshConfig, PeerConfig
from mesh.core import Punt
from vswitch import core
from vswitch.host import allowed_cpus
from vswitch.model import Bridge, Config, Control, Port, TapPort, VhostUserPort, Workers
from vswitch.ports import Publisher
from vswitch.switch import Switch

CPU = allowed_cpus()[0]
KEYS = [bytes([i]) * 32 for i in range(5)]


class Plug:
    """A port whose cable is a socket pair."""

    def __init__(self, port_id: int, port: Port, maker: "Maker") -> None:
        self.name = port.name
        self.port_id = port_id
        self._maker = maker
        ours, self.cable = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        self._port = core.TapPort(port_id, ours.detach(), uso=True)
        self.c_port: object = self._port.c
        self.c_rxqs: list[object] = []
        self.numa_node: int | None = None

    def start(self) -> None:
        self._maker.happen("start", self.name)
        self.c_rxqs.append(self._port.rxq())

    def close(self) -> None:
        self._maker.happen("close", self.name)
        self._port.close()
        self.cable.close()

    def status(self) -> dict[str, object]:
        return {"state": "up"}


class MeshPlug(Plug):
    """The mesh; its peers' numbers are their places in the configuration."""

    def __init__(self, port_id: int, config: MeshConfig, maker: "Maker") -> None:
        super().__init__(port_id, TapPort("mesh", "mesh", ()), maker)
        self.config = config

    @property
    def c_rxqs(self) -> list[list[object]]:  # type: ignore[override]  # per worker
        return [self._rxqs]

    @c_rxqs.setter
    def c_rxqs(self, value: list[object]) -> None:
        self._rxqs = value

    @property
    def peer_ids(self) -> Mapping[bytes, int]:
        return {peer.public_key: i for i, peer in enumerate(self.config.peers)}

    def refused(self) -> dict[str, int]:
        return {}

    def start(self) -> None:
        self._maker.happen("start", self.name)
        self._rxqs.append(self._port.rxq())

    def apply(self, config: MeshConfig) -> None:
        self._maker.happen("apply", f"mesh {len(config.peers)}")
        self.config = config

    def handle_punt(self, punt: Punt) -> None:
        raise AssertionError(f"nothing punts here: {punt}")


class Maker:
    """Makes fakes and remembers what happened.

    fail: "start vm2": that step fails, once.  watch: called with each event.
    """

    def __init__(self) -> None:
        self.events: list[str] = []
        self.fail: dict[str, Exception] = {}
        self.watch: Callable[[str], object] = len

    def happen(self, what: str, name: str) -> None:
        event = f"{what} {name}"
        self.events.append(event)
        self.watch(event)
        error = self.fail.pop(event, None)
        if error is not None:
            raise error

    def port(
        self, port_id: int, config: Config, bridge: Bridge, port: Port, publisher: Publisher
    ) -> Plug:
        return Plug(port_id, port, self)

    def mesh(
        self, port_id: int, config: MeshConfig, publisher: Publisher, workers: int
    ) -> MeshPlug:
        return MeshPlug(port_id, config, self)


def vm(name: str, path: str = "", **changes: object) -> VhostUserPort:
    return replace(
        VhostUserPort(name, path or f"/{name}", "server", 0o660, None, None, (), ()), **changes
    )


def bridge(*ports: Port, name: str = "br0", mtu_bytes: int = 1400, macs: int = 64) -> Bridge:
    return Bridge(name, (ip_network("10.5.0.0/24"),), mtu_bytes, 300, macs, ports)


def config(
    *bridges: Bridge,
    mesh: MeshConfig | None = None,
    cpus: tuple[int, ...] = (CPU,),
    key: bytes = KEYS[0],
) -> Config:
    return Config("/f", Control(), Workers(cpus), bridges, mesh, key if mesh else None)


def mesh_of(*peers: bytes, port: int = 7400) -> MeshConfig:
    listen = Address.parse(f"127.0.0.1:{port}")
    return MeshConfig(
        listen,
        "key",
        tuple(PeerConfig(key, addresses=(ip_network(f"10.9.{key[0]}.0/24"),)) for key in peers),
        1400,
    )


def died(reason: str) -> None:
    raise AssertionError(reason)


def plugs(switch: Switch) -> dict[str, Plug]:
    return {name: attached.plug for (_, name), attached in switch.state.ports.items()}
