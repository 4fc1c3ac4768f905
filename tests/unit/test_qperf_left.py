"""What is left behind: launched programs, namespaces, folders, signals. No privilege."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qperf_suite import commands, image, leftovers
from qperf_suite.cli import main
from qperf_suite.errors import TopologyError, UsageError
from qperf_suite.guests import LAUNCHER
from qperf_suite.remote import Login, SshGuest
from qperf_suite.topology import Topology, netns

LAUNCH = [sys.executable, "-IS", str(LAUNCHER)]


def test_nothing_is_launched_for_a_parent_that_has_ended() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    for parent, status in ((os.getpid(), 0), (ended.pid, 1)):
        command = [*LAUNCH, "--parent", str(parent), "--", "echo", "begun"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == status
        assert ("begun" in done.stdout) == (status == 0)
    assert "who started this has ended" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_tears_down(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torn_down = []

    def act(*_: object) -> int:
        try:
            os.kill(os.getpid(), number)
        finally:
            # Not a second time.
            os.kill(os.getpid(), signal.SIGHUP)
            torn_down.append(number)
        return 0

    monkeypatch.setattr(commands, "clean", act)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever started the tests
    try:
        assert main(["clean"]) == 130
    finally:
        signal.signal(signal.SIGHUP, before)
    assert torn_down == [number]
    assert "everything is torn down" in capsys.readouterr().err


def test_a_run_begun_with_nohup_survives_the_loss_of_its_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def act(*_: object) -> int:
        os.kill(os.getpid(), signal.SIGHUP)
        return 7

    monkeypatch.setattr(commands, "clean", act)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main(["clean"]) == 7
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


class Sockets:
    def close(self) -> None:
        pass


def test_a_namespace_that_stays_does_not_keep_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    removed = []

    def remove(name: str) -> None:
        if name.endswith("-two"):
            raise OSError("busy")
        removed.append(name)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(netns, "remove", remove)
    topology = Topology("none")
    topology._namespaces = {name: Sockets() for name in ("one", "two", "three")}
    with pytest.raises(TopologyError, match="-two: busy"):
        topology.close()
    assert removed == [topology.full_name(name) for name in ("three", "one")]
    topology.close()


def test_servers_and_files_of_a_remote_guest_are_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def ssh(command: list[str], **_: Any) -> "subprocess.CompletedProcess[bytes]":
        said.append(command[-1])
        return subprocess.CompletedProcess(command, 0, b"/tmp/made", b"")

    monkeypatch.setattr(subprocess, "run", ssh)
    guest = SshGuest("bridge-a1", Login("root@h", "10.7.0.1"), tmp_path)
    guest.install("pingpong", b"")
    for server in ("qperf", "iperf3 -s"):
        guest.spawn(server)
    assert 'rm -rf "${TMPDIR:-/tmp}/qperf-suite-bridge-a1".*' in said[0]
    said.clear()
    guest.close()
    assert "pkill -9 -x iperf3; pkill -9 -x qperf" in said[0]
    assert "rm -r /tmp/made" in said[1]
    said.clear()
    guest.close()
    assert said == ["root@h"], "nothing but the end of the connection"


def test_a_compiler_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "wrong.c"
    source.write_text("int main(void) { return nothing; }\n")
    monkeypatch.setattr(image, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(image, "PINGPONG", source)
    with pytest.raises(UsageError, match=r"gcc cannot compile wrong\.c(?s:.*)nothing"):
        image.pingpong()
    assert list((tmp_path / "cache").iterdir()) == []


def test_namespaces_are_not_removed_without_ip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / f"qs{ended.pid}-a").touch()
    monkeypatch.setattr(leftovers, "NAMESPACES", tmp_path)
    monkeypatch.setattr(leftovers.tempfile, "gettempdir", lambda: str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="apt-get install iproute2"):
        leftovers.clean()
