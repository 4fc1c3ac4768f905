"""vsw mesh ping and vsw mesh trace, run as commands on hosts in a row (see test_via_netns.py)."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.configs import public
from tests.fakes.daemons import environment, until
from tests.netns.test_via_netns import PORT, SEEDS, Host, address, row

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root for network namespaces"
)

KEYS = [public(seed) for seed in SEEDS]


def said(host: Host, *words: str) -> tuple[int, str]:
    """Exit status and what was printed, on either stream."""
    print(f"+ vsw mesh {' '.join(words)}", file=sys.stderr)
    done = host.daemon.call("mesh", *words)
    return done.returncode, done.stdout + done.stderr


def told(host: Host, *words: str) -> tuple[int, dict[str, Any]]:
    status, text = said(host, *words, "--json")
    return status, json.loads(text)


def names(trace: dict[str, Any]) -> list[str | None]:
    return [hop["public_key"] for hop in trace["hops"]]


def test_ping(tmp_path: Path) -> None:
    with row(tmp_path, 3) as (a, b, _):
        status, text = said(a, "ping", KEYS[2], "-c", "3", "-i", "0.1", "-s", "1000")
        answer = rf"1000 bytes: seq=\d time=\d+\.\d{{3}} ms via {re.escape(KEYS[1])}\n"
        summary = "\n3 sent, 3 received, 0.0% loss\nrtt min/avg/max/mdev = "
        assert status == 0
        assert re.match(
            rf"ping {re.escape(KEYS[2])}: .*\n({answer}){{3}}{re.escape(summary)}", text
        )
        status, one = told(a, "ping", "10.5.0.2", "-c", "1")
        assert (status, one["sent"], one["received"], one["loss"]) == (0, 1, 1, 0.0)
        assert (one["target"], one["public_key"]) == ("10.5.0.2", KEYS[1])
        (pong,) = one["answers"]
        assert (pong["seq"], pong["bytes"], pong["endpoint"], pong["via"], pong["lost"]) == (
            *(1, 64, f"{address(0, 1)}:{PORT}"),
            *(None, None),
        )
        assert 0 < pong["rtt_ms"] == one["rtt_ms"]["min"] == one["rtt_ms"]["max"]
        status, text = said(a, "ping", KEYS[1][:8], "-c", "1", "-s", "9000")
        assert (status, "seq=1 too long for the device" in text) == (1, True)

        endless = subprocess.Popen(
            # A shell that starts tests in the background has them ignore the signal.
            [
                *("env", "--default-signal=INT"),
                *a.daemon.words("mesh", "ping", KEYS[1][:8], "-i", "0.1"),
            ],
            cwd=a.daemon.file.parent,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        with endless:
            assert endless.stdout is not None
            while "seq=3" not in endless.stdout.readline():
                assert endless.poll() is None
            endless.send_signal(signal.SIGINT)
            text = endless.stdout.read()
        assert endless.returncode == 0
        assert "0.0% loss\nrtt min/avg/max/mdev" in text

        assert b.daemon.stop() == 0
        status, lost = told(a, "ping", "10.5.0.2", "-c", "2", "-i", "0.1")
        assert (status, lost["received"], lost["loss"], lost["rtt_ms"]) == (1, 0, 1.0, None)
        assert {answer["lost"] for answer in lost["answers"]} == {"no answer"}
        b.daemon.close()
        b.daemon.start()
        b.daemon.wait("READY=1")


def test_trace_over_four_nodes(tmp_path: Path) -> None:
    with row(tmp_path, 4) as (a, b, c, d):
        status, text = said(a, "trace", "10.5.0.2")
        assert status == 0
        line = rf" 1  {re.escape(KEYS[1])}  \d+\.\d{{3}} ms\n"
        assert re.fullmatch(rf"trace .*\n{line}reached: {re.escape(KEYS[1])}\n", text)

        def whole() -> bool:
            return told(a, "trace", KEYS[3])[0] == 0

        until(whole, "sessions all the way")
        for start, target, way in ((a, 3, [1, 2, 3]), (d, 0, [2, 1, 0]), (b, 3, [2, 3])):
            _, trace = told(start, "trace", KEYS[target])
            assert names(trace) == [KEYS[number] for number in way]
            assert (trace["end"], trace["reached"]) == ("reached", True)
            assert [hop["hop"] for hop in trace["hops"]] == list(range(1, len(way) + 1))
            assert [hop["proved"] for hop in trace["hops"]] == [True] + [False] * (len(way) - 1)
            assert all(hop["rtt_ms"] > 0 for hop in trace["hops"])
        assert "hop_limit" not in b.drops()

        assert d.daemon.stop() == 0
        status, trace = told(a, "trace", "10.5.0.4")
        assert (status, names(trace)) == (1, [KEYS[1], KEYS[2], None, None])
        assert (trace["end"], trace["at"]) == ("no answer", KEYS[2])

        # c is new, and finds nobody there.
        assert c.daemon.stop() == 0
        c.daemon.close()
        c.daemon.start()
        c.daemon.wait("READY=1")
        until(lambda: c.peer(1)["state"] == "connected", "b and c")
        status, trace = told(a, "trace", "10.5.0.4")
        assert (status, names(trace)) == (1, [KEYS[1], KEYS[2]])
        assert (trace["end"], trace["at"]) == ("no session with the next node", KEYS[2])
        d.daemon.close()
        d.daemon.start()
        d.daemon.wait("READY=1")


def test_trace_of_a_loop(tmp_path: Path) -> None:
    """a believes that c is behind b, b that it is behind a; c says nothing."""
    lies = {(0, 2): 1, (1, 2): 0, (2, 0): None, (2, 1): None}
    with row(tmp_path, 3, lambda number, other: lies.get((number, other), other)) as (a, *_):
        until(lambda: a.peer(1)["state"] == "connected", "the neighbour")
        status, trace = told(a, "trace", "10.5.0.3")
        assert status == 1
        assert (trace["end"], trace["reached"]) == ("hop limit used up", False)
        assert names(trace) == [KEYS[(number + 1) % 2] for number in range(9)]
