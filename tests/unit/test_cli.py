"""The command line: keys, checks, what is printed, exit statuses."""

import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mesh.identity import Identity, decode_key
from mesh.keyfile import load_identity
from tests.fakes.configs import write_files
from vswitch import cli, tables, views

STATUS = {
    "version": "0.1.0",
    "pid": 7,
    "uptime_s": 3725,
    "config": "/etc/a.toml",
    "idle": "adaptive",
    "workers": [
        {
            "index": 0,
            "cpu": 1,
            "numa_node": None,
            "packets": 5,
            "breaths": 9,
            "busy_breaths": 4,
            "sleeps": 2,
        }
    ],
    "bridges": [
        {
            "name": "br0",
            "mtu": 1400,
            "macs": 2,
            "router_mac": "02:00:00:00:00:01",
            "subnets": ["10.5.0.0/24"],
        }
    ],
    "ports": [
        {
            "bridge": "br0",
            "name": "vm1",
            "type": "vhost-user",
            "state": "connected",
            "workers": [0],
            "rx_packets": 3,
            "tx_packets": 4,
            "drops": 0,
            "addresses": [],
            "detail": {
                "reason": "waiting for SET_VRING_KICK of ring 1",
                "queues": [{"kind": "packed", "started": s} for s in (True, False)],
            },
        }
    ],
    "mesh": {
        "listen": "0.0.0.0:7400",
        "public_key": "K" * 44,
        "peers": [
            {
                "public_key": "P" * 44,
                "state": "connected",
                "endpoint": None,
                "via": None,
                "last_handshake_s": 65.2,
                "rx_bytes": 1,
                "tx_bytes": 2,
                "relayed_bytes": 3,
                "paths": [
                    {
                        "endpoint": "192.0.2.2:7400",
                        "used": True,
                        "alive": True,
                        "mtu": 1400,
                        "path_mtu": 1476,
                        "rtt_ms": 0.25,
                        "loss": 0.01,
                    }
                ],
                "cipher": "AES_256_GCM",
                "lanes": 2,
                "lanes_used": 1,
                "addresses": ["10.5.0.2/32"],
            }
        ],
    },
}


def run(*arguments: str) -> int:
    try:
        return cli.main(list(arguments))
    except SystemExit as e:
        return int(e.code or 0)


def test_keygen_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.key"
    assert run("keygen", str(path)) == 0
    out = capsys.readouterr()
    assert out.err == ""
    assert decode_key(out.out.strip(), "key") == load_identity(str(path)).public_key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_keygen_ignores_a_generous_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert run("keygen", str(tmp_path / "a.key")) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600


def test_keygen_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.key"
    path.write_text("precious")
    assert run("keygen", str(path)) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.count("\n") == 1
    assert str(path) in out.err
    assert path.read_text() == "precious"


def test_keygen_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("keygen") == 0
    out = capsys.readouterr()
    identity = Identity(decode_key(out.out.strip(), "key"))
    assert decode_key(out.err.strip(), "key") == identity.public_key


def test_keygen_makes_different_keys(capsys: pytest.CaptureFixture[str]) -> None:
    keys = set()
    for _ in range(3):
        assert run("keygen", "--json") == 0
        keys.add(json.loads(capsys.readouterr().out)["private_key"])
    assert len(keys) == 3


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(write_files(tmp_path))
    assert run("check", file) == 0
    assert capsys.readouterr().out == f"{file}: ok\n"
    assert run("check", "--json", file) == 0
    assert json.loads(capsys.readouterr().out) == {"file": file, "ok": True}


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_file_that_is_not_there(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "/nowhere/vsw.toml") == 2
    assert capsys.readouterr().err == (
        "vsw: /nowhere/vsw.toml: there is no such file; name a configuration file\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["strat"],
        ["run"],
        ["check"],
        ["status", "--jsn"],
        ["status", "--control"],
        ["mesh"],
        ["mesh", "pears"],
        ["keygen", "a", "b"],
        ["run", "a", "--js"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.count("\n") == 1
    assert "--help" in out.err


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["ports"],
        ["fdb"],
        ["stats"],
        ["top"],
        ["mesh", "peers"],
        ["mesh", "routes"],
        ["mesh", "ping", "10.5.0.2"],
        ["mesh", "trace", "10.5.0.2"],
    ],
    ids=" ".join,
)
def test_no_daemon(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.sock"
    assert run(*command, "--control", str(path)) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"vsw: {path}: no daemon")
    assert "vsw run FILE" in message
    assert message.count("\n") == 1


def test_a_dead_daemons_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(path))
    assert run("status", "--control", str(path)) == 2
    assert "no daemon answers" in capsys.readouterr().err


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    """Something at the control socket that gives one answer."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(4096)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()


@pytest.mark.parametrize(
    "answer",
    [b"", b"hello\n", b'{"QMP": {}}\n', b"[1]\n", b'{"ok": false, "error": "no such"}\n'],
    ids=["nothing", "no JSON", "QEMU", "an array", "refusal"],
)
def test_a_strange_daemon(
    answer: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.sock"
    with answering(path, answer):
        assert run("status", "--control", str(path)) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_control_socket_from_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.sock"
    monkeypatch.setenv("VSW_CONTROL", str(path))
    with answering(path, json.dumps({"ok": True, "result": STATUS}).encode() + b"\n"):
        assert run("status", "--json") == 0
    assert json.loads(capsys.readouterr().out) == STATUS


def test_status_as_text() -> None:
    lines = views.status(STATUS).splitlines()
    assert lines[:3] == ["version: 0.1.0", "pid:     7", "up:      1h2m"]
    assert (
        "bridge  port  type        state      rings       workers  rx  tx  drops  addresses"
        in lines
    )
    assert "br0     vm1   vhost-user  connected  1/2 packed  0         3   4      0  -" in lines
    assert "br0/vm1: waiting for SET_VRING_KICK of ring 1" in lines
    assert any("1m5s ago" in line for line in lines)
    assert any(line.split()[2:6] == ["used", "1476", "0.25", "ms"] for line in lines)
    assert max(map(len, lines)) <= 130


def test_stats_as_text() -> None:
    port = {
        "bridge": "br0",
        "name": "vm1",
        "rx_packets": 10,
        "tx_packets": 0,
        "drops": {"no_route": 2},
        "queues": [
            {
                "index": 1,
                "role": "tx",
                "kicks": None,
                "calls_sent": 3,
                "calls_spared": 4,
                "drops": {"short": 1},
            }
        ],
    }
    worker = {"index": 0, "cpu": 1, "numa_node": None, "sleeps": 0}
    assert views.stats({"ports": [port], "workers": [worker]}) == (
        "br0/vm1\n  rx_packets     10\n  drop no_route  2\n"
        "  ring 1         tx: ? kicks, 3 calls, 4 spared, 1 short\n\n"
        "worker 0\n  cpu     1\n  sleeps  0"
    )


def test_tables_are_aligned() -> None:
    assert tables.table(("name", "n"), [("a", 5), ("bcdefg", 123)]) == (
        "name      n\na         5\nbcdefg  123"
    )
    assert tables.table(("name", "n"), []) == "name  n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (60, "1m0s"), (3725, "1h2m"), (90061, "1d1h")]
)
def test_durations(seconds: int, text: str) -> None:
    assert tables.duration(seconds) == text
