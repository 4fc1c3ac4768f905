"""What the switch needs of the things plugged into it, and how they are made from configuration."""

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Protocol

from mesh.config import MeshConfig
from mesh.core import Punt
from mesh.inquiries import Inquiries
from mesh.service import MeshService
from vhost.port import VhostConfig, VhostPort
from vswitch.errors import Place
from vswitch.model import Bridge, Config, Port, TapPort, VhostUserPort, port_key
from vswitch.tap import TapPort as TapPlug


class Publisher(Protocol):
    """What a plug may ask of the switch."""

    def republish(self) -> None:
        """Publish what all plugs list now; return when every worker is past what was before."""

    def sync(self) -> None:
        """Return when every worker is past everything published or unlinked before."""


class Plug(Protocol):
    """A port.  c_port and c_rxqs (the started queues) are the data plane's pointers.

    numa_node: of the memory behind the port; None: unknown, or nowhere in particular.
    """

    @property
    def c_port(self) -> object: ...
    @property
    def c_rxqs(self) -> list[object]: ...
    @property
    def numa_node(self) -> int | None: ...
    def start(self) -> None: ...
    def close(self) -> None: ...
    def status(self) -> dict[str, object]: ...


class MeshPlug(Protocol):
    """The mesh.  c_rxqs: per worker; peer_ids: by public key, for routes."""

    @property
    def c_port(self) -> object: ...
    @property
    def c_rxqs(self) -> list[list[object]]: ...
    @property
    def peer_ids(self) -> Mapping[bytes, int]: ...
    def start(self) -> None: ...
    def apply(self, config: MeshConfig) -> None: ...
    def close(self) -> None: ...
    def handle_punt(self, punt: Punt) -> None: ...
    def status(self) -> list[dict[str, object]]: ...
    def refused(self) -> dict[str, int]: ...
    def inquire(self, begin: Callable[[Inquiries], int]) -> Callable[[], None]: ...


class Maker(Protocol):
    """Makes plugs; tests have their own."""

    def port(
        self, port_id: int, config: Config, bridge: Bridge, port: Port, publisher: Publisher
    ) -> Plug: ...
    def mesh(
        self, port_id: int, config: MeshConfig, publisher: Publisher, workers: int
    ) -> MeshPlug: ...


class PlugMaker:
    """Makes the real ones."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def port(
        self, port_id: int, config: Config, bridge: Bridge, port: Port, publisher: Publisher
    ) -> Plug:
        match port:
            case VhostUserPort():
                return VhostPort(
                    port_id,
                    port.name,
                    VhostConfig(
                        path=port.path,
                        mode=port.mode,
                        socket_mode=port.socket_mode,
                        socket_group=port.socket_group,
                        mtu_bytes=bridge.mtu_bytes,
                        mac=port.mac,
                        offloads=port.offloads,
                        state_folder=os.path.dirname(config.control.path),
                    ),
                    publisher,
                    self._loop,
                )
            case TapPort():
                place = Place(config.file, f"{port_key(bridge, port)}.interface")
                return TapPlug(port_id, port.interface, bridge.mtu_bytes, place)

    def mesh(
        self, port_id: int, config: MeshConfig, publisher: Publisher, workers: int
    ) -> MeshPlug:
        return MeshService(port_id, config, publisher, self._loop, workers)
