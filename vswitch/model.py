"""What a configuration says, as immutable values: the daemon's only input.

Filled from TOML by config.py; another source (a database) fills the same classes.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from mesh.config import MeshConfig

Network = IPv4Network | IPv6Network

RUN_DIRECTORY = "/run/vsw"
DEFAULT_CONTROL = f"{RUN_DIRECTORY}/vsw.sock"
DEFAULT_MTU_BYTES = 1400
DEFAULT_AGEING_S = 300
DEFAULT_MAC_TABLE_SIZE = 8192


@dataclass(frozen=True)
class Control:
    """The control socket.  mode: permission bits."""

    path: str = DEFAULT_CONTROL
    mode: int = 0o600
    group: str | None = None


@dataclass(frozen=True)
class Workers:
    """cpus: one worker per entry, pinned to it; empty: one, on the first CPU we may use."""

    cpus: tuple[int, ...] = ()
    idle: str = "adaptive"


@dataclass(frozen=True)
class VhostUserPort:
    """A VM's port.

    mode: "client" (the VM listens) or "server" (we listen).
    offloads: names that vhost.messages.OFFLOADS knows, in its order.
    cpus: of the workers that serve this port and no other; empty: all but those.
    """

    name: str
    path: str
    mode: str
    socket_mode: int
    socket_group: str | None
    mac: bytes | None
    offloads: tuple[str, ...]
    addresses: tuple[Network, ...]
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class TapPort:
    """A port of the host's own network stack.  cpus: as of a VM's port."""

    name: str
    interface: str
    addresses: tuple[Network, ...]
    cpus: tuple[int, ...] = ()


Port = VhostUserPort | TapPort


@dataclass(frozen=True)
class Bridge:
    """mtu_bytes: largest IP packet; mac_table_size: entries at most."""

    name: str
    subnets: tuple[Network, ...]
    mtu_bytes: int
    ageing_s: int
    mac_table_size: int
    ports: tuple[Port, ...]


@dataclass(frozen=True)
class Config:
    """One whole configuration.

    file:       where it was read, for messages.
    public_key: this node's, of the mesh's private key; None without a mesh.
    """

    file: str
    control: Control
    workers: Workers
    bridges: tuple[Bridge, ...]
    mesh: MeshConfig | None
    public_key: bytes | None

    def ports(self) -> list[tuple[Bridge, Port]]:
        """All ports with their bridges, in the file's order."""
        return [(bridge, port) for bridge in self.bridges for port in bridge.ports]

    def sockets(self) -> list[str]:
        """Paths of all UNIX sockets, ours and the VMs'."""
        return [self.control.path] + [
            port.path for _, port in self.ports() if isinstance(port, VhostUserPort)
        ]


def port_key(bridge: Bridge, port: Port) -> str:
    """The key path of a port in the configuration file."""
    return f"bridges.{bridge.name}.ports.{port.name}"
