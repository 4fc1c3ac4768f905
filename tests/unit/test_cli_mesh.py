"""What vsw mesh peers, ping and trace print."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_cli import answering
from vswitch import cli, views
from vswitch.meshping import Tally

COLUMNS = 100
B, C = "B" * 43 + "=", "C" * 43 + "="
HEAD = {"target": "10.5.0.3", "public_key": C}


def pong(seq: int, rtt_ms: float | None, **changes: object) -> dict[str, Any]:
    row = {"seq": seq, "bytes": 64, "rtt_ms": rtt_ms, "endpoint": None, "via": B, "lost": None}
    return {**row, **changes}


def hop(number: int, key: str | None, *, proved: bool = False) -> dict[str, Any]:
    rtt_ms = None if key is None else number / 2
    return {"hop": number, "public_key": key, "rtt_ms": rtt_ms, "proved": proved}


def run(path: Path, rows: list[dict[str, Any]], *words: str, finished: bool = True) -> int:
    """vsw mesh WORDS, when the daemon answers with these rows."""
    lines = [{"ok": True, "result": row, "more": True} for row in [HEAD, *rows]]
    answers = [*lines, {"ok": True, "result": None}] if finished else lines
    data = b"".join(json.dumps(answer).encode() + b"\n" for answer in answers)
    with answering(path / "c.sock", data):
        return cli.main(["mesh", *words, "10.5.0.3", "--control", str(path / "c.sock")])


ROWS = [pong(1, 0.5), pong(2, None, lost="no answer"), pong(3, 1.0, via=None, endpoint="[::1]:7")]


def test_ping(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, ROWS, "ping") == 0
    assert capsys.readouterr().out == (
        f"ping 10.5.0.3: {C}\n"
        f"64 bytes: seq=1 time=0.500 ms via {B}\n"
        f"seq=2 no answer via {B}\n"
        "64 bytes: seq=3 time=1.000 ms [::1]:7\n"
        "\n"
        "3 sent, 2 received, 33.3% loss\n"
        "rtt min/avg/max/mdev = 0.500/0.750/1.000/0.250 ms\n"
    )


def test_ping_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, ROWS, "ping", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        **HEAD,
        "answers": ROWS,
        "sent": 3,
        "received": 2,
        "loss": 0.333,
        "rtt_ms": {"min": 0.5, "avg": 0.75, "max": 1.0, "mdev": 0.25},
    }


@pytest.mark.parametrize("rows", [[], [pong(1, None, via=None, lost="no session")]])
def test_nothing_answered(
    rows: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, rows, "ping") == 1
    out = capsys.readouterr().out
    assert f"\n\n{len(rows)} sent, 0 received, {100 * len(rows):.1f}% loss\n" in out
    assert "rtt" not in out


def test_ctrl_c(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(*_: object) -> Any:
        yield HEAD
        yield ROWS[0]
        raise KeyboardInterrupt

    monkeypatch.setattr("vswitch.control.ask_on", rows)
    assert cli.main(["mesh", "ping", "10.5.0.3"]) == 0
    assert (
        "\n\n1 sent, 1 received, 0.0% loss\nrtt min/avg/max/mdev = 0.5" in capsys.readouterr().out
    )
    assert cli.main(["mesh", "trace", "10.5.0.3", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["end"] == "stopped"


@pytest.mark.parametrize("what", ["ping", "trace"])
def test_a_daemon_that_ends(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, [], what, finished=False) == 2
    assert "the daemon ended the conversation" in capsys.readouterr().err


def test_no_rounding_below_zero() -> None:
    """Equal round trips have no deviation, whatever the sums make of it."""
    tally = Tally()
    for seq in range(1000):
        tally.count(pong(seq, 0.1))
    assert tally.summary()["rtt_ms"] == {"min": 0.1, "avg": 0.1, "max": 0.1, "mdev": 0.0}


HOPS = [hop(1, B, proved=True), hop(2, None), hop(3, C)]


def test_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    end = {"end": "reached", "reached": True, "at": C}
    assert run(tmp_path, [*HOPS, end], "trace") == 0
    assert capsys.readouterr().out == (
        f"trace 10.5.0.3: {C}\n"
        f" 1  {B}  0.500 ms\n"
        " 2  *\n"
        f" 3  {C}  1.500 ms  (so it is told)\n"
        f"reached: {C}\n"
    )


def test_trace_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    end = {"end": "no session", "reached": False, "at": None}
    assert run(tmp_path, [*HOPS, end], "trace", "--json") == 1
    assert json.loads(capsys.readouterr().out) == {**HEAD, "hops": HOPS, **end}


def peer(**changes: object) -> dict[str, Any]:
    way = {
        "endpoint": "[2001:db8:1111:2222:3333:4444:5555:6666]:65535",
        "used": True,
        "alive": True,
        "mtu": 1400,
        "path_mtu": 1496,
        "rtt_ms": 1234.56,
        "loss": 1.0,
    }
    row: dict[str, Any] = {
        "public_key": C,
        "state": "connecting",
        "endpoint": way["endpoint"],
        "via": None,
        "last_handshake_s": 179.0,
        "rx_bytes": 10**13,
        "tx_bytes": 10**13,
        "relayed_bytes": 10**13,
        "paths": [way, {**way, "used": False, "rtt_ms": None}],
        "cipher": "CHACHA20_POLY1305",
        "lanes": 31,
        "lanes_used": 31,
        "addresses": ["10.5.0.3/32", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:0/112"],
    }
    return {**row, **changes}


def test_peers_fit_a_terminal() -> None:
    lines = views.mesh_peers(
        [peer(), peer(state="idle", paths=[], cipher=None, via=B)]
    ).splitlines()
    assert max(len(line) for line in lines) <= COLUMNS
    text = "\n".join(lines)
    for part in (
        C,
        "2001:db8:aaaa:bbbb:cccc:dddd:eeee:0/112",
        "2m59s ago",
        "chacha20-poly1305",
        "relayed bytes",
        "[2001:db8:1111:2222:3333:4444:5555:6666]:65535  used",
        "1234.56 ms",
        "100%",
    ):
        assert part in text


def test_peers_without_anything() -> None:
    assert views.mesh_peers([]) == "no peers"
    alone = peer(paths=[], endpoint=None, last_handshake_s=None, addresses=[])
    text = views.mesh_peers([alone])
    assert "never" in text
    behind = {**peer()["paths"][0], "endpoint": None, "path_mtu": None}
    assert f"via {B[:12]}" in views.mesh_peers([peer(via=B, paths=[behind])])
