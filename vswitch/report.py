"""What the control socket tells about a running switch, as JSON-able values."""

import os
import time
from importlib.metadata import version

from mesh.identity import encode_key
from vswitch import core
from vswitch.model import Port, TapPort, VhostUserPort
from vswitch.state import MESH, PortName, router_mac
from vswitch.switch import Switch

VERSION = version("meshswitch")

Row = dict[str, object]


class Report:
    """Answers of one daemon."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        self._started_ns = time.monotonic_ns()

    def status(self) -> Row:
        state = self._switch.state
        config = state.config
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "uptime_s": (time.monotonic_ns() - self._started_ns) // 1_000_000_000,
            "config": config.file,
            "idle": config.workers.idle,
            "workers": [thread.status() for thread in self._switch.workers],
            "bridges": [
                {
                    "name": bridge.name,
                    "mtu": bridge.mtu_bytes,
                    "subnets": [str(subnet) for subnet in bridge.subnets],
                    "router_mac": format_mac(router_mac(config, bridge.name)),
                    "macs": len(state.fdbs[bridge.name].dump(time.monotonic_ns())),
                }
                for bridge in config.bridges
            ],
            "ports": self.ports(),
            "mesh": self._mesh(),
        }

    def _mesh(self) -> Row | None:
        config, mesh = self._switch.state.config, self._switch.state.mesh
        if config.mesh is None or config.public_key is None:
            return None
        return {
            "listen": str(config.mesh.listen),
            "public_key": encode_key(config.public_key),
            "peers": self.mesh_peers(),
            "refused": mesh.plug.refused() if mesh is not None else {},
        }

    def ports(self) -> list[Row]:
        rows: list[Row] = []
        for (bridge, name), attached in self._switch.state.ports.items():
            status = attached.plug.status()
            counters = core.port_counters(attached.plug.c_port)
            rows.append(
                {
                    "bridge": bridge,
                    "name": name,
                    "id": attached.port_id,
                    "type": type_of(attached.config),
                    "state": status.get("state", ""),
                    "addresses": [str(network) for network in attached.config.addresses],
                    "workers": sorted(
                        {self._switch.worker_of(rxq) for rxq in attached.plug.c_rxqs}
                    ),
                    "rx_packets": counters.values["rx_packets"],
                    "tx_packets": counters.values["tx_packets"],
                    "drops": sum(counters.drops.values()),
                    "detail": status,
                }
            )
        return rows

    def fdb(self) -> list[Row]:
        state = self._switch.state
        names = {attached.port_id: name for (_, name), attached in state.ports.items()}
        now_ns = time.monotonic_ns()
        return [
            {
                "bridge": bridge,
                "mac": format_mac(mac),
                "port": names.get(port, str(port)),
                "age_s": age_s,
            }
            for bridge, fdb in state.fdbs.items()
            for mac, port, age_s in sorted(fdb.dump(now_ns))
        ]

    def stats(self) -> Row:
        state = self._switch.state
        rows = [
            port_stats(bridge, name, port.plug.c_port, queue_stats(port.plug.status()))
            for (bridge, name), port in state.ports.items()
        ]
        if state.mesh is not None:
            rows.append(port_stats("", "mesh", state.mesh.plug.c_port, []))
        return {"ports": rows, "workers": [thread.status() for thread in self._switch.workers]}

    def top(self) -> Row:
        """What vsw top compares with the next answer."""
        switch = self._switch
        drops = {
            name: sum(core.port_counters(attached.plug.c_port).drops.values())
            for name, attached in switch.state.ports.items()
        }
        rows = [
            queue_row(name, number, switch.worker_of(rxq), rxq, drops[name])
            for name, number, rxq in switch.queues()
        ]
        mesh = switch.state.mesh
        if mesh is not None:
            dropped = sum(core.port_counters(mesh.plug.c_port).drops.values())
            # The first of a worker is its lane; what else it has carries no packets.
            rows += [
                queue_row(MESH, lane, lane, rxq, dropped)
                for lane, rxqs in enumerate(mesh.plug.c_rxqs)
                for rxq in rxqs[:1]
            ]
        return {
            "now_ns": time.monotonic_ns(),
            "timed_every": core.TIMED_EVERY,
            "workers": [thread.status() for thread in switch.workers],
            "queues": rows,
        }

    def mesh_peers(self) -> list[Row]:
        mesh = self._switch.state.mesh
        return mesh.plug.status() if mesh is not None else []

    def mesh_routes(self) -> list[Row]:
        """Every prefix with its owner, in the order of addresses."""
        state = self._switch.state
        owned = [
            (network, "port", f"{bridge}/{name}")
            for (bridge, name), attached in state.ports.items()
            for network in attached.config.addresses
        ]
        if state.config.mesh is not None:
            owned += [
                (network, "peer", encode_key(peer.public_key))
                for peer in state.config.mesh.peers
                for network in peer.addresses
            ]
        owned.sort(key=lambda row: (row[0].version, int(row[0].network_address), row[0].prefixlen))
        return [
            {"prefix": str(network), "kind": kind, "owner": owner} for network, kind, owner in owned
        ]


def port_stats(bridge: str, name: str, c_port: object, queues: list[Row]) -> Row:
    counters = core.port_counters(c_port)
    return {
        "bridge": bridge,
        "name": name,
        **counters.values,
        "drops": counters.drops,
        "queues": queues,
    }


def queue_stats(status: Row) -> list[Row]:
    """The counters of a port's started rings; ports of other kinds have none."""
    queues = status.get("queues")
    if not isinstance(queues, list):
        return []
    keys = ("index", "role", "kicks", "calls_sent", "calls_spared", "drops")
    return [{key: queue[key] for key in keys} for queue in queues if "drops" in queue]


def queue_row(name: PortName, number: int, worker: int, rxq: object, port_drops: int) -> Row:
    bridge, port = name
    return {
        "bridge": bridge,
        "port": port,
        "queue": number,
        "worker": worker,
        **core.rxq_counters(rxq),
        "port_drops": port_drops,
    }


def type_of(port: Port) -> str:
    match port:
        case VhostUserPort():
            return "vhost-user"
        case TapPort():
            return "tap"


def format_mac(mac: bytes) -> str:
    return mac.hex(":")
