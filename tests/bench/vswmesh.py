"""Ours: the daemon on each host, with a tap."""

from pathlib import Path

from tests.bench.errors import BenchError
from tests.bench.ground import Ground, wire_address
from tests.bench.overlay import IP_BYTES, UDP_BYTES, Overlay, inner
from tests.fakes.configs import public, write_key
from tests.fakes.daemons import Daemon

PORT = 7400
SEED_BYTES = 32
MESH_BYTES = 48  # docs/mesh-protocol.md: a record's header, prefix and tag


def seed(host: int) -> bytes:
    return bytes([host + 1]) * SEED_BYTES


class Vsw(Overlay):
    """Hosts next to each other know each other's endpoint; others are reached through those."""

    name = "vsw"
    overhead_bytes = IP_BYTES + UDP_BYTES + MESH_BYTES

    def __init__(self, ground: Ground, folder: Path) -> None:
        super().__init__(ground, folder)
        self.daemons: list[Daemon] = []

    def start(self) -> None:
        for host, netns in enumerate(self.ground.names):
            folder = self.folder / netns
            folder.mkdir()
            write_key(folder / "own.key", seed(host))
            (folder / "vsw.toml").write_text(self.config(host))
            self.daemons.append(Daemon(folder / "vsw.toml", self.ground.command(host)))
        for host, daemon in enumerate(self.daemons):
            try:
                daemon.wait("READY=1")
            except TimeoutError:
                raise BenchError("it is not ready") from None
            self.attach(host)

    def attach(self, host: int) -> None:
        """Sees to what is behind the port."""
        self.give_address(host, "vsw0")

    def config(self, host: int) -> str:
        """The file."""
        text = (
            f'control = "control.sock"\n[workers]\ncpus = [{self.ground.cpu(host)}]\n'
            f'[bridges.br0]\nsubnets = ["10.5.0.0/24"]\nmtu = {self.mtu_bytes}\n'
            f"[bridges.br0.ports.host]\n{self.port(host)}"
            f'addresses = ["{inner(host)}/32"]\n'
            f'[mesh]\nlisten = "0.0.0.0:{PORT}"\nprivate_key_file = "own.key"\n'
        )
        for other in range(self.last + 1):
            if other != host:
                text += f'[[mesh.peers]]\npublic_key = "{public(seed(other))}"\n'
                text += f'addresses = ["{inner(other)}/32"]\n{self.way(host, other)}\n'
        return text

    def port(self, host: int) -> str:
        return 'type = "tap"\ninterface = "vsw0"\n'

    def way(self, host: int, other: int) -> str:
        """How a host reaches another."""
        step = 1 if other > host else -1
        if host + step != other:
            return f'via = "{public(seed(host + step))}"'
        address = wire_address(min(host, other), max(step, 0))
        return f'endpoints = ["{address}:{PORT}"]'

    def ended(self) -> bool:
        return any(daemon.process.poll() is not None for daemon in self.daemons)

    def last_words(self) -> str:
        self._logs = [daemon.log for daemon in self.daemons]
        return super().last_words()

    def pids(self) -> list[int]:
        return [daemon.process.pid for daemon in self.daemons]

    def relayed_bytes(self, host: int) -> int:
        """What a host has passed on for others, on the wire."""
        peers = self.daemons[host].ask("mesh", "peers")
        return sum(int(peer["relayed_bytes"]) for peer in peers)

    def close(self) -> None:
        for daemon in self.daemons:
            daemon.close()
        self.daemons = []
