"""vsw top: what workers and queues do, once a second, from two looks at the daemon's counters."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from vswitch.tables import table

PERIOD_S = 1.0
CLEAR = "\x1b[H\x1b[2J"  # cursor to the corner, nothing on the screen (ECMA-48)
WORKER_COLUMNS = (
    *("worker", "cpu", "node", "busy", "polling", "packets/s", "cycles/packet"),
    *("sleeps/s", "wakes/s", "naps/s"),
)
QUEUE_COLUMNS = (
    *("queue", "worker", "busy", "packets/s", "cycles/packet", "packets/burst"),
    *("wakes/s", "port drops/s"),
)

Sample = Mapping[str, Any]
Row = dict[str, Any]


def run(ask: Callable[[], Sample], *, once: bool, as_json: bool) -> int:
    """Print until interrupted, or once.  ask: the daemon's answer to "top".  Returns 0."""
    live = sys.stdout.isatty() and not once
    try:
        before = ask()
        while True:
            time.sleep(PERIOD_S)
            after = ask()
            shown = rates(before, after)
            before = after
            if as_json:
                print(json.dumps(shown, indent=2))
                return 0
            if live:
                lines = shutil.get_terminal_size().lines
                print(CLEAR + "\n".join(text(shown).split("\n")[: lines - 1]), flush=True)
            else:
                print(text(shown), end="\n\n" if not once else "\n", flush=True)
            if once:
                return 0
    except KeyboardInterrupt:
        print()
        return 0


def rates(before: Sample, after: Sample) -> Row:
    """What happened between two samples.

    busy: share of a CPU spent in breaths (of a worker) or bursts (of a queue) that moved packets;
    polling: spent looking in vain; cycles_per_packet, packets_per_burst: None without packets.
    """
    seconds = max(1e-9, (after["now_ns"] - before["now_ns"]) / 1e9)
    then = {worker["index"]: worker for worker in before["workers"]}
    spans: dict[int, int] = {}
    workers: list[Row] = []
    for worker in after["workers"]:
        d = difference(then.get(worker["index"], worker), worker)
        spans[worker["index"]] = span = max(1, d["cycles_clock"])
        workers.append(
            {
                "index": worker["index"],
                "cpu": worker["cpu"],
                "numa_node": worker["numa_node"],
                "busy": d["cycles_busy"] / span,
                "polling": d["cycles_idle"] / span,
                "packets_per_s": d["packets"] / seconds,
                "cycles_per_packet": ratio(d["cycles_busy"], d["packets"]),
                "sleeps_per_s": d["sleeps"] / seconds,
                "wakes_per_s": d["wakes"] / seconds,
                "naps_per_s": d["naps"] / seconds,
            }
        )
    former = {key(queue): queue for queue in before["queues"]}
    queues = [
        queue_rates(former.get(key(queue), queue), queue, seconds, after["timed_every"], spans)
        for queue in after["queues"]
    ]
    queues.sort(key=lambda queue: -queue["busy"])  # stable: the switch's order among equals
    return {"seconds": seconds, "workers": workers, "queues": queues}


def key(queue: Row) -> tuple[str, str, int]:
    return queue["bridge"], queue["port"], queue["queue"]


def queue_rates(
    before: Row, after: Row, seconds: float, timed_every: int, spans: Mapping[int, int]
) -> Row:
    d = difference(before, after)
    return {
        "bridge": after["bridge"],
        "port": after["port"],
        "queue": after["queue"],
        "worker": after["worker"],
        "busy": d["timed_cycles"] * timed_every / spans[after["worker"]],
        "packets_per_s": d["packets"] / seconds,
        "cycles_per_packet": ratio(d["timed_cycles"], d["timed_packets"]),
        "packets_per_burst": ratio(d["packets"], d["bursts"]),
        "wakes_per_s": d["wakes"] / seconds,
        "port_drops_per_s": d["port_drops"] / seconds,
    }


def difference(before: Row, after: Row) -> dict[str, int]:
    """Of each counter.  What counts less than before began anew in between."""
    return {
        name: value - before[name] if value >= before[name] else value
        for name, value in after.items()
        if isinstance(value, int)
    }


def ratio(part: int, whole: int) -> float | None:
    return part / whole if whole > 0 else None


def text(shown: Row) -> str:
    """Two tables; queues that did nothing are only counted."""
    workers = table(
        WORKER_COLUMNS,
        [
            (
                w["index"],
                w["cpu"],
                "-" if w["numa_node"] is None else w["numa_node"],
                share(w["busy"]),
                share(w["polling"]),
                round(w["packets_per_s"]),
                figure(w["cycles_per_packet"]),
                round(w["sleeps_per_s"]),
                round(w["wakes_per_s"]),
                round(w["naps_per_s"]),
            )
            for w in shown["workers"]
        ],
    )
    some = [q for q in shown["queues"] if q["packets_per_s"] or q["wakes_per_s"]]
    queues = table(
        QUEUE_COLUMNS,
        [
            (
                "/".join(part for part in (q["bridge"], q["port"], str(q["queue"])) if part),
                q["worker"],
                share(q["busy"]),
                round(q["packets_per_s"]),
                figure(q["cycles_per_packet"]),
                figure(q["packets_per_burst"]),
                round(q["wakes_per_s"]),
                round(q["port_drops_per_s"]),
            )
            for q in some
        ],
    )
    quiet = len(shown["queues"]) - len(some)
    parts = [workers, *([queues] if some else []), *([f"{quiet} quiet queues"] if quiet else [])]
    return "\n\n".join(parts)


def share(of_one: float) -> str:
    return f"{of_one:6.1%}"


def figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
