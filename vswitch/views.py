"""The daemon's answers as text, one function per command."""

from typing import Any

from vswitch.tables import duration, fields, join, table

KEY_SHOWN = 12  # characters of a public key: enough to tell peers apart, and to name one


def status(answer: dict[str, Any]) -> str:
    parts = [
        fields(
            [
                ("version", answer["version"]),
                ("pid", answer["pid"]),
                ("up", duration(answer["uptime_s"])),
                ("config", answer["config"]),
                ("idle", answer["idle"]),
            ]
        )
    ]
    parts.append(
        table(
            ("worker", "cpu", "node", "packets", "breaths", "busy", "sleeps"),
            [
                (
                    w["index"],
                    w["cpu"],
                    "-" if w["numa_node"] is None else w["numa_node"],
                    w["packets"],
                    w["breaths"],
                    w["busy_breaths"],
                    w["sleeps"],
                )
                for w in answer["workers"]
            ],
        )
    )
    parts.append(
        table(
            ("bridge", "mtu", "macs", "router mac", "subnets"),
            [
                (b["name"], b["mtu"], b["macs"], b["router_mac"], join(b["subnets"]))
                for b in answer["bridges"]
            ],
        )
    )
    parts.append(ports(answer["ports"]))
    mesh = answer["mesh"]
    if mesh is not None:
        parts.append(fields([("mesh", mesh["listen"]), ("public key", mesh["public_key"])]))
        parts.append(mesh_peers(mesh["peers"]))
    return "\n\n".join(parts)


def ports(answer: list[dict[str, Any]]) -> str:
    """The ports, and beneath them what keeps any of them from its work."""
    rows = table(
        ("bridge", "port", "type", "state", "rings", "workers", "rx", "tx", "drops", "addresses"),
        [
            (
                p["bridge"],
                p["name"],
                p["type"],
                p["state"],
                rings(p["detail"]),
                join(p["workers"]),
                p["rx_packets"],
                p["tx_packets"],
                p["drops"],
                join(p["addresses"]),
            )
            for p in answer
        ],
    )
    notes = [
        f"{p['bridge']}/{p['name']}: {note}"
        for p in answer
        for note in [p["detail"].get("reason"), *p["detail"].get("notes", [])]
        if note
    ]
    return "\n".join([rows, "", *notes]) if notes else rows


def rings(detail: dict[str, Any]) -> str:
    """How many of a VM's rings run, and their kind."""
    queues = detail.get("queues")
    if not queues:
        return "-"
    return f"{sum(queue['started'] for queue in queues)}/{len(queues)} {queues[0]['kind']}"


def fdb(answer: list[dict[str, Any]]) -> str:
    return table(
        ("bridge", "mac", "port", "age"),
        [(e["bridge"], e["mac"], e["port"], f"{e['age_s']}s") for e in answer],
    )


def stats(answer: dict[str, Any]) -> str:
    """One block per port, what is zero left out; then the workers."""
    blocks = []
    for port in answer["ports"]:
        name = f"{port['bridge']}/{port['name']}" if port["bridge"] else port["name"]
        values: list[tuple[str, object]] = [
            (key, value) for key, value in port.items() if isinstance(value, int) and value
        ]
        values += [(f"drop {reason}", count) for reason, count in port["drops"].items()]
        values += [(f"ring {queue['index']}", ring_counters(queue)) for queue in port["queues"]]
        width = max((len(key) for key, _ in values), default=0)
        blocks.append("\n".join([name, *(f"  {key:<{width}}  {value}" for key, value in values)]))
    for worker in answer["workers"]:
        values = [
            (key, value) for key, value in worker.items() if key != "index" and value is not None
        ]
        width = max(len(key) for key, _ in values)
        blocks.append(
            "\n".join(
                [
                    f"worker {worker['index']}",
                    *(f"  {key:<{width}}  {value}" for key, value in values),
                ]
            )
        )
    return "\n\n".join(blocks)


def ring_counters(queue: dict[str, Any]) -> str:
    kicks = "?" if queue["kicks"] is None else queue["kicks"]
    text = (
        f"{queue['role']}: {kicks} kicks, {queue['calls_sent']} calls, "
        f"{queue['calls_spared']} spared"
    )
    return text + "".join(f", {count} {reason}" for reason, count in queue["drops"].items())


def mesh_peers(answer: list[dict[str, Any]]) -> str:
    """Three tables, as one would be wider than a terminal: whose addresses, sessions, ways."""
    if not answer:
        return "no peers"
    return "\n\n".join(
        [
            table(("peer", "state", "addresses"), [row for p in answer for row in mesh_owned(p)]),
            table(
                ("peer", "handshake", "rx bytes", "tx bytes", "relayed bytes", "cipher", "lanes"),
                [mesh_session(peer) for peer in answer],
            ),
            table(
                ("peer", "path", "", "path mtu", "rtt", "loss"),
                [row for peer in answer for row in mesh_ways(peer)],
            ),
        ]
    )


def mesh_owned(peer: dict[str, Any]) -> list[tuple[object, ...]]:
    """A row for each address, the first with the name."""
    first, *others = peer["addresses"] or ["-"]
    return [
        (peer["public_key"], peer["state"], first),
        *(("", "", address) for address in others),
    ]


def mesh_session(peer: dict[str, Any]) -> tuple[object, ...]:
    age_s = peer["last_handshake_s"]
    return (
        peer["public_key"][:KEY_SHOWN],
        "never" if age_s is None else f"{duration(int(age_s))} ago",
        peer["rx_bytes"],
        peer["tx_bytes"],
        peer["relayed_bytes"],
        (peer["cipher"] or "-").lower().replace("_", "-"),
        f"{peer['lanes_used'] or '-'}/{peer['lanes']}",
    )


def mesh_ways(peer: dict[str, Any]) -> list[tuple[object, ...]]:
    """A row for each way to the peer; while there is none, where it is looked for."""
    key = peer["public_key"][:KEY_SHOWN]
    via = f"via {(peer['via'] or '?')[:KEY_SHOWN]}"
    if not peer["paths"]:
        where = peer["endpoint"] or (via if peer["via"] else "-")
        return [(key, where, "-", "-", "-", "-")]
    return [
        (
            key,
            way["endpoint"] or via,
            ("used" if way["used"] else "spare") if way["alive"] else "dead",
            "-" if way["path_mtu"] is None else way["path_mtu"],
            "-" if way["rtt_ms"] is None else f"{way['rtt_ms']:.2f} ms",
            f"{way['loss']:.0%}",
        )
        for way in peer["paths"]
    ]


def mesh_routes(answer: list[dict[str, Any]]) -> str:
    return table(
        ("prefix", "kind", "owner"), [(r["prefix"], r["kind"], r["owner"]) for r in answer]
    )
