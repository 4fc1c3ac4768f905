"""Open vSwitch on DPDK: a database and a daemon, in a folder and a network namespace of their own.

Both are killed when the thread that started them ends.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from qperf_suite.errors import SuiteError, UsageError

LAUNCHER = Path(__file__).with_name("launch.py")
DAEMON = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
START_TIMEOUT_S = 30.0


def installed() -> bool:
    """Whether this machine has it."""
    return Path(DAEMON).exists() and shutil.which("ovsdb-server") is not None


class Ovs:
    """One switch. folder: empty, with a short name.  netns: as `ip netns` calls it."""

    def __init__(self, folder: Path, netns: str | None = None) -> None:
        if not installed():
            raise UsageError(f"{DAEMON} is missing: apt-get install openvswitch-switch-dpdk")
        self.folder = folder
        self._netns = netns
        self._database = f"unix:{folder}/db.sock"
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def pid(self) -> int:
        """The daemon, which leads a session."""
        return self._processes[-1].pid

    @property
    def processes(self) -> dict[str, "subprocess.Popen[bytes]"]:
        """The database and the daemon, by their names."""
        return dict(zip(("ovsdb-server", "ovs-vswitchd"), self._processes, strict=False))

    def signal(self, number: signal.Signals) -> None:
        """Send the daemon a signal, unless it has ended."""
        self._processes[-1].send_signal(number)

    def start(self, options: Mapping[str, str]) -> None:
        """Start it with other_config of the Open_vSwitch table, and wait until it answers."""
        self._run("ovsdb-tool", "create", f"{self.folder}/conf.db", SCHEMA)
        self._launch(
            "ovsdb-server",
            f"--remote=p{self._database}",
            f"--unixctl={self.folder}/ovsdb.ctl",
            f"{self.folder}/conf.db",
        )
        self._until(lambda: _answers(self.folder / "db.sock"))
        self.vsctl("--no-wait", "init")
        self.vsctl(
            *("--no-wait", "set", "Open_vSwitch", "."),
            *(f'other_config:{key}="{value}"' for key, value in options.items()),
        )
        self._launch(DAEMON, self._database, f"--unixctl={self.folder}/vswitchd.ctl")
        self._until(lambda: _answers(self.folder / "vswitchd.ctl"))

    def vsctl(self, *arguments: str) -> str:
        """Change the configuration, and wait until the daemon has; raises SuiteError."""
        return self._run("ovs-vsctl", "--timeout=30", f"--db={self._database}", *arguments)

    def appctl(self, *arguments: str) -> str:
        """Ask the daemon; raises SuiteError."""
        return self._run("ovs-appctl", "-t", f"{self.folder}/vswitchd.ctl", *arguments)

    def close(self) -> None:
        """Kill both. Safe to call twice."""
        for process in reversed(self._processes):
            if process.poll() is None:
                process.kill()
            process.wait()

    def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for the process that was started last."""
        process, deadline = self._processes[-1], time.monotonic() + START_TIMEOUT_S
        while not condition():
            if process.poll() is not None or time.monotonic() > deadline:
                log = max(self.folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
                raise SuiteError(f"OVS does not start:\n{log.read_text(errors='replace')[-1000:]}")
            time.sleep(0.05)  # a daemon in the foreground does not say when it is ready

    def _environment(self) -> dict[str, str]:
        folders = ("OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR")
        # DPDK's files go below RUNTIME_DIRECTORY.
        return {**os.environ, **dict.fromkeys((*folders, "RUNTIME_DIRECTORY"), str(self.folder))}

    def _launch(self, *command: str) -> None:
        launcher = [sys.executable, "-IS", str(LAUNCHER), "--parent", str(os.getpid())]
        if self._netns is not None:
            launcher += ["--netns", f"/run/netns/{self._netns}"]
        with (self.folder / f"{Path(command[0]).name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*launcher, "--", *command],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                start_new_session=True,
            )
        self._processes.append(process)

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=self._environment()
        )
        if done.returncode != 0:
            raise SuiteError(f"{' '.join(command)}: {done.stderr.strip()} (see {self.folder})")
        return done.stdout


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
