"""vsw mesh trace: prints the nodes on the way, from the daemon's answers."""

import json
from collections.abc import Iterator
from typing import Any

Row = dict[str, Any]


def run(rows: Iterator[Row], *, as_json: bool) -> int:
    """Returns the exit status: 0 when the way leads to the target."""
    hops: list[Row] = []
    end: Row = {"end": "stopped", "reached": False, "at": None}
    head: Row = {}
    try:
        head = next(rows)
        if not as_json:
            print(f"trace {head['target']}: {head['public_key']}", flush=True)
        for row in rows:
            if "end" in row:
                end = row
            else:
                hops.append(row)
                if not as_json:
                    print(line(row), flush=True)
    except KeyboardInterrupt:
        pass
    if as_json:
        print(json.dumps({**head, "hops": hops, **end}, indent=2))
    else:
        print(in_words(end))
    return 0 if end["reached"] else 1


def line(row: Row) -> str:
    if row["public_key"] is None:
        return f"{row['hop']:2}  *"
    told = "" if row["proved"] else "  (so it is told)"
    return f"{row['hop']:2}  {row['public_key']}  {row['rtt_ms']:.3f} ms{told}"


def in_words(end: Row) -> str:
    return f"{end['end']}: {end['at']}" if end["at"] else str(end["end"])
