"""A real daemon: readiness, control socket, reload, stop.  Ports are vhost-user without a guest."""

import json
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.configs import PEER_SEED, RIGHT, changed, public, write_files
from tests.fakes.daemons import (
    WAIT_S,
    Daemon,
    environment,
    fork_as_nobody,
    running,
    until,
)
from vswitch.control import ask

NEW_PORT = '\n[bridges.br0.ports.vm3]\ntype = "vhost-user"\npath = "vm3.sock"\nmode = "server"\n'
# One that is not in use: several of these may run on one machine.
LISTEN = '"127.0.0.1:7400"'


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@pytest.fixture
def right(tmp_path: Path) -> str:
    """The right configuration with a UDP port that is free."""
    write_files(tmp_path)
    text = changed(LISTEN, f'"127.0.0.1:{free_udp_port()}"')
    (tmp_path / "vsw.toml").write_text(text)
    return text


@pytest.fixture
def daemon(tmp_path: Path, right: str) -> Iterator[Daemon]:
    with running(tmp_path / "vsw.toml") as daemon:
        yield daemon


def front_end(tmp_path: Path) -> socket.socket:
    """Somebody attached to vm2."""
    s = socket.socket(socket.AF_UNIX)
    s.connect(str(tmp_path / "vm2.sock"))
    return s


def port_state(daemon: Daemon, name: str) -> str:
    (state,) = [port["state"] for port in daemon.ask("ports") if port["name"] == name]
    return str(state)


def gone(s: socket.socket) -> bool:
    s.setblocking(False)
    try:
        return s.recv(1) == b""
    except BlockingIOError:
        return False


def test_what_it_says_of_itself(daemon: Daemon, tmp_path: Path) -> None:
    status = daemon.ask("status")
    assert status["pid"] == daemon.process.pid
    assert status["config"] == str(tmp_path / "vsw.toml")
    assert [port["name"] for port in status["ports"]] == ["vm1", "vm2"]
    assert [worker["cpu"] for worker in status["workers"]] == [min(os.sched_getaffinity(0))]
    assert status["bridges"][0]["mtu"] == 1400
    (peer,) = status["mesh"]["peers"]
    assert peer["public_key"] == public(PEER_SEED)
    assert daemon.ask("mesh", "peers")[0]["public_key"] == public(PEER_SEED)
    assert daemon.ask("mesh", "routes") == [
        {"prefix": "10.5.0.1/32", "kind": "port", "owner": "br0/vm1"},
        {"prefix": "10.5.0.2/32", "kind": "peer", "owner": public(PEER_SEED)},
        {"prefix": "fd00:5::1/128", "kind": "port", "owner": "br0/vm1"},
    ]
    assert daemon.ask("fdb") == []
    assert [port["name"] for port in daemon.ask("stats")["ports"]] == ["vm1", "vm2", "mesh"]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["ping", "10.6.0.1"], "nobody in the mesh has the address"),
        (["ping", "10.5.0.1"], "behind port br0/vm1 of this switch"),
        (["ping", public(PEER_SEED), "-c", "0"], "count is 0"),
        (["ping", public(PEER_SEED), "-i", "0.05"], "interval_s is 0.05"),
        (["ping", public(PEER_SEED), "-i", "nan"], "interval_s is nan"),
        (["ping", public(PEER_SEED), "-s", "15"], "size is 15"),
        (["ping", public(PEER_SEED), "-s", "many"], "invalid int value"),
        (["ping"], "TARGET"),
        (["trace", "nobody"], "neither the beginning of a peer's public key nor an address"),
    ],
)
def test_who_cannot_be_asked(daemon: Daemon, command: list[str], says: str) -> None:
    done = daemon.call("mesh", *command)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_a_mesh(tmp_path: Path, right: str) -> None:
    (tmp_path / "vsw.toml").write_text(right[: right.index("[mesh]")])
    with running(tmp_path / "vsw.toml") as daemon:
        done = daemon.call("mesh", "trace", "10.5.0.2")
    assert done.returncode == 2
    assert "this switch has no mesh" in done.stderr


def asking(daemon: Daemon, **request: object) -> tuple[socket.socket, dict[str, object]]:
    """A conversation, and the first answer in it."""
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(WAIT_S)
    s.connect(str(daemon.control))
    s.sendall(json.dumps(request).encode() + b"\n")
    with s.makefile("rb") as stream:
        return s, json.loads(stream.readline())


def test_an_inquiry_ends_with_its_client(daemon: Daemon) -> None:
    target = public(PEER_SEED)
    open_ones = []
    while True:
        s, answer = asking(daemon, command="mesh ping", target=target)
        if not answer["ok"]:
            break
        assert answer["more"]
        assert answer["result"] == {"target": target, "public_key": target}
        open_ones.append(s)
    assert "under way already" in str(answer["error"])
    s.close()
    with open_ones.pop() as talkative:
        talkative.sendall(b"\n")
        while talkative.recv(4096):
            pass  # saying anything ends it, too
    while open_ones:
        open_ones.pop().close()

    def allowed() -> bool:
        conversation, answer = asking(daemon, command="mesh trace", target=target)
        conversation.close()
        return bool(answer["ok"])

    until(allowed, "an end of those whose clients are gone")
    assert daemon.ask("mesh", "peers")[0]["public_key"] == target


@pytest.mark.parametrize(
    "request_",
    [{}, {"target": 7}, {"target": "10.5.0.2", "count": "3"}, {"target": "10.5.0.2", "size": True}],
)
def test_strange_inquiries(daemon: Daemon, request_: dict[str, object]) -> None:
    s, answer = asking(daemon, command="mesh ping", **request_)
    s.close()
    assert not answer["ok"]
    assert answer["remedy"]


def test_sockets_have_their_modes(daemon: Daemon, tmp_path: Path) -> None:
    modes = {
        name: stat.S_IMODE((tmp_path / name).stat().st_mode)
        for name in ("control.sock", "vm2.sock")
    }
    assert modes == {"control.sock": 0o600, "vm2.sock": 0o660}


def test_workers_are_pinned_and_named(daemon: Daemon) -> None:
    tasks = Path(f"/proc/{daemon.process.pid}/task")
    names = {(task / "comm").read_text().strip(): int(task.name) for task in tasks.iterdir()}
    worker = names["vsw-worker-0"]
    assert os.sched_getaffinity(worker) == {min(os.sched_getaffinity(0))}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_clean_stop_leaves_nothing(daemon: Daemon, tmp_path: Path, number: int) -> None:
    guest = front_end(tmp_path)
    daemon.process.send_signal(number)
    daemon.wait("STOPPING=1")
    assert daemon.process.wait(WAIT_S) == 0
    assert not (tmp_path / "control.sock").exists()
    assert not (tmp_path / "vm2.sock").exists()
    assert guest.recv(1) == b""
    guest.close()


def test_after_a_kill_it_starts_again(daemon: Daemon, tmp_path: Path) -> None:
    daemon.close()
    assert (tmp_path / "control.sock").exists()
    assert (tmp_path / "vm2.sock").exists()
    daemon.start()
    daemon.wait("READY=1")
    assert port_state(daemon, "vm2") == "listening"


def test_reload_starts_what_is_new_and_leaves_the_rest(
    daemon: Daemon, tmp_path: Path, right: str
) -> None:
    with front_end(tmp_path) as guest:
        until(lambda: port_state(daemon, "vm2") == "connected", "vm2 connected")
        assert daemon.reload(right + NEW_PORT).startswith("running")
        assert port_state(daemon, "vm3") == "listening"
        assert port_state(daemon, "vm2") == "connected"
        assert daemon.reload(right).startswith("running")
        assert not (tmp_path / "vm3.sock").exists()
        assert port_state(daemon, "vm2") == "connected"
        assert not gone(guest)


WRONG = {
    "syntax": ("not TOML [", "not TOML"),
    "unknown key": (RIGHT.replace("mtu =", "mut ="), "bridges.br0.mut"),
    "missing directory": (RIGHT.replace("vm1.sock", "none/vm1.sock"), "bridges.br0.ports.vm1.path"),
    "overlap": (RIGHT.replace("10.5.0.2/32", "10.5.0.1/32"), "overlaps"),
    "cpu": (RIGHT.replace("cpus = [", "cpus = [4095, "), "workers.cpus"),
    "bad key": (RIGHT.replace(public(PEER_SEED), "AAAA"), "mesh.peers[0].public_key"),
    "no file": ("", "bridges"),
}


def test_reload_with_a_wrong_file_changes_nothing(daemon: Daemon, tmp_path: Path) -> None:
    """One after the other, so that nothing of a wrong one is left for the next either."""
    with front_end(tmp_path) as guest:
        until(lambda: port_state(daemon, "vm2") == "connected", "vm2 connected")
        before = daemon.ask("mesh", "routes")
        sockets = sorted(tmp_path.glob("*.sock"))
        for name, (text, says) in WRONG.items():
            status = daemon.reload(text)
            assert status.startswith("not reloaded: "), name
            assert says in status
            assert says in daemon.log.read_text()
            assert daemon.ask("mesh", "routes") == before, name
            assert port_state(daemon, "vm2") == "connected", name
            assert not gone(guest), name
            assert sorted(tmp_path.glob("*.sock")) == sockets, name


def test_reload_that_fails_on_the_way_is_undone(daemon: Daemon, tmp_path: Path, right: str) -> None:
    """The file is right, but a socket that it wants is another program's."""
    with front_end(tmp_path) as guest, socket.socket(socket.AF_UNIX) as other:
        until(lambda: port_state(daemon, "vm2") == "connected", "vm2 connected")
        other.bind(str(tmp_path / "vm3.sock"))
        other.listen()
        more = NEW_PORT.replace("vm3", "vm4") + NEW_PORT
        status = daemon.reload(right + more)
        assert "not reloaded" in status
        assert "bridges.br0.ports.vm3.path" in status
        assert [port["name"] for port in daemon.ask("ports")] == ["vm1", "vm2"]
        assert port_state(daemon, "vm2") == "connected"
        assert not gone(guest)
        assert not (tmp_path / "vm4.sock").exists()


def test_reload_moves_the_control_socket(daemon: Daemon, tmp_path: Path, right: str) -> None:
    daemon.reload(right.replace("control.sock", "other.sock"))
    assert not daemon.control.exists()
    daemon.control = tmp_path / "other.sock"
    assert daemon.ask("status")["pid"] == daemon.process.pid


def test_reload_changes_who_may_use_the_control_socket(
    daemon: Daemon, tmp_path: Path, right: str
) -> None:
    assert daemon.reload('control_mode = "0666"\n' + right).startswith("running")
    assert stat.S_IMODE(daemon.control.stat().st_mode) == 0o666
    wrong = right.replace("vm1.sock", "none/vm1.sock")
    assert daemon.reload('control_mode = "0606"\n' + wrong).startswith("not reloaded")
    assert stat.S_IMODE(daemon.control.stat().st_mode) == 0o666
    assert daemon.ask("status")["pid"] == daemon.process.pid


def converse(daemon: Daemon, *lines: bytes) -> list[bytes]:
    """Each line's answer; the last one is empty when the daemon hung up."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(WAIT_S)
        s.connect(str(daemon.control))
        with s.makefile("rb") as stream:
            answers = []
            for line in lines:
                s.sendall(line)
                answers.append(stream.readline())
            return answers


def test_nonsense_on_the_control_socket(daemon: Daemon) -> None:
    answers = converse(
        daemon,
        b"\n",
        b"[]\n",
        b'{"command": 5}\n',
        b'{"command": "quit"}\n',
        b"\xff\xfe\n",
        b'{"command": "status"}\n',
    )
    assert [json.loads(answer)["ok"] for answer in answers] == [False] * 5 + [True]
    assert b"known: status, ports" in answers[3]
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(WAIT_S)
        s.connect(str(daemon.control))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            s.sendall(bytes(64 * 1024 * 1024))  # no line is that long
    assert daemon.ask("fdb") == []


def test_a_second_daemon_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "vswitch.cli", "run", str(tmp_path / "vsw.toml")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
        env=environment(),
    )
    assert second.returncode == 2
    assert "vsw.toml: control: another daemon answers" in second.stderr
    assert daemon.ask("status")["pid"] == daemon.process.pid
    assert port_state(daemon, "vm2") == "listening"


def test_an_idle_daemon_uses_less_than_one_percent(daemon: Daemon, tmp_path: Path) -> None:
    seconds = 3.0
    with front_end(tmp_path):
        until(lambda: port_state(daemon, "vm2") == "connected", "vm2 connected")
        before = daemon.cpu_s()
        threading.Event().wait(seconds)
        tick_s = 0.01  # what the kernel counts in
        assert daemon.cpu_s() - before < 0.01 * seconds + tick_s


def test_workers_that_poll_never_sleep(tmp_path: Path, right: str) -> None:
    (tmp_path / "vsw.toml").write_text(right.replace('"adaptive"', '"poll"'))
    with running(tmp_path / "vsw.toml") as daemon:

        def sleeps_breaths() -> tuple[int, int]:
            (worker,) = daemon.ask("stats")["workers"]
            return worker["sleeps"], worker["breaths"]

        first = sleeps_breaths()
        until(lambda: sleeps_breaths()[1] > first[1] + 10_000, "10,000 breaths")
        assert sleeps_breaths()[0] == first[0]


def test_an_ordinary_user_runs_it() -> None:
    with tempfile.TemporaryDirectory(prefix="vsw-test-") as name, tempfile.TemporaryFile() as log:
        directory = Path(name).resolve()
        file = write_files(directory)
        file.write_text(changed(LISTEN, f'"127.0.0.1:{free_udp_port()}"'))
        uid = os.geteuid()
        if uid == 0:
            nobody = pwd.getpwnam("nobody")
            uid = nobody.pw_uid
            for path in (directory, *directory.iterdir()):
                os.chown(path, uid, nobody.pw_gid)
        pid = fork_as_nobody(["run", str(file)], log.fileno())
        try:
            until((directory / "vm2.sock").exists, "its port")
            status = ask(str(directory / "control.sock"), "status")
            assert status["pid"] == pid
            assert Path(f"/proc/{pid}").stat().st_uid == uid
            assert (directory / "vm2.sock").stat().st_uid == uid
        finally:
            os.kill(pid, signal.SIGTERM)
            _, code = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(code) == 0
