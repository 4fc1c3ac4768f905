"""vsw mesh ping: prints round trips as ping does, from the daemon's answers."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]


@dataclass
class Tally:
    """What came of the probes so far."""

    rtts_ms: list[float] = field(default_factory=list)
    lost: int = 0

    def count(self, row: Row) -> None:
        if row["rtt_ms"] is None:
            self.lost += 1
        else:
            self.rtts_ms.append(row["rtt_ms"])

    def summary(self) -> Row:
        """rtt_ms: None without an answer.  mdev: as ping's, the standard deviation."""
        received = len(self.rtts_ms)
        sent = received + self.lost
        rtt = None
        if received:
            mean = sum(self.rtts_ms) / received
            variance = sum((rtt - mean) ** 2 for rtt in self.rtts_ms) / received
            rtt = {
                "min": min(self.rtts_ms),
                "avg": round(mean, 3),
                "max": max(self.rtts_ms),
                "mdev": round(math.sqrt(variance), 3),
            }
        loss = round(self.lost / sent, 3) if sent else 0.0
        return {"sent": sent, "received": received, "loss": loss, "rtt_ms": rtt}


def run(rows: Iterator[Row], *, as_json: bool) -> int:
    """Until rows end, or Ctrl-C.  Returns the exit status: 0 when anything was answered."""
    tally = Tally()
    answers: list[Row] = []
    head: Row = {}
    try:
        head = next(rows)
        if not as_json:
            print(f"ping {head['target']}: {head['public_key']}", flush=True)
        for row in rows:
            tally.count(row)
            answers.append(row)
            if not as_json:
                print(line(row), flush=True)
    except KeyboardInterrupt:
        pass
    summary = tally.summary()
    if as_json:
        print(json.dumps({**head, "answers": answers, **summary}, indent=2))
    else:
        print(f"\n{in_words(summary)}")
    return 0 if summary["received"] else 1


def line(row: Row) -> str:
    way = row["endpoint"] or (f"via {row['via']}" if row["via"] else "")
    if row["rtt_ms"] is None:
        return f"seq={row['seq']} {row['lost']} {way}".rstrip()
    return f"{row['bytes']} bytes: seq={row['seq']} time={row['rtt_ms']:.3f} ms {way}".rstrip()


def in_words(summary: Row) -> str:
    text = f"{summary['sent']} sent, {summary['received']} received, {summary['loss']:.1%} loss"
    rtt = summary["rtt_ms"]
    if rtt is None:
        return text
    values = "/".join(f"{rtt[key]:.3f}" for key in ("min", "avg", "max", "mdev"))
    return f"{text}\nrtt min/avg/max/mdev = {values} ms"
