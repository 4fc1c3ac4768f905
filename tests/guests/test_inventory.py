"""Guests reached by ssh.

suite ── br0 ── a1, a2      namespaces; sshd in a1 and a2, the suite in the other
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from qperf_suite.leftovers import PREFIX
from qperf_suite.outcome import load
from qperf_suite.store import Store
from qperf_suite.topology import Topology
from tests.fakes.daemons import until

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(SSHD is None, reason="openssh-server is not installed"),
]
# The suite ends what is called like its tools: a guest sees processes of its own alone.
ALONE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
SERVERS = {"qperf", "iperf3", "pingpong"}
ADDRESSES = {"a1": "10.7.0.1", "a2": "10.7.0.2"}


class Lab:
    """Two guests with sshd, and the suite among them."""

    def __init__(self, folder: Path, topology: Topology) -> None:
        self.folder = folder
        self.topology = topology
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        Path("/run/sshd").mkdir(exist_ok=True)
        for name in ("key", "other", "host"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name]
            subprocess.run(command, check=True)
        topology.namespace("suite")
        topology.bridge("suite", "br0")
        topology.address("suite", "br0", "10.7.0.254/24")
        for guest, address in ADDRESSES.items():
            topology.namespace(guest)
            topology.veth((guest, "eth0"), ("suite", guest))
            topology.enslave("suite", guest, "br0")
            topology.address(guest, "eth0", f"{address}/24")
            self.serve(guest)

    def serve(self, guest: str, path: str | None = None) -> None:
        """Start sshd; path: the PATH of what it starts."""
        options = {
            "AuthorizedKeysFile": self.folder / "key.pub",
            "HostKey": self.folder / "host",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
        }
        if path is not None:
            options["SetEnv"] = f"PATH={path}"
        arguments = [f"-o{name}={value}" for name, value in options.items()]
        self.daemons[guest] = subprocess.Popen(
            [*self.inside(guest), *ALONE, SSHD, "-D", "-f", "/dev/null", *arguments],
            stderr=subprocess.DEVNULL,
        )
        until(lambda: self.listens(guest), "sshd")

    def listens(self, guest: str) -> bool:
        with self.topology.entered(guest):
            return ":0016 " in Path("/proc/thread-self/net/tcp").read_text()

    def end(self, guest: str) -> None:
        """Everything in a guest dies at once."""
        while found := self.pids(guest):
            for pid in found:  # with sshd's listener dead, others end by themselves
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
        self.daemons.pop(guest).wait()

    def running(self, guest: str) -> set[str]:
        """Names of a guest's processes."""
        names = set()
        for pid in self.pids(guest):
            with contextlib.suppress(OSError):
                names.add(Path(f"/proc/{pid}/comm").read_text().strip())
        return names

    def pids(self, guest: str) -> list[int]:
        namespace = self.topology.full_name(guest)
        listed = subprocess.run(
            ["ip", "netns", "pids", namespace], capture_output=True, text=True, check=True
        )
        return [int(pid) for pid in listed.stdout.split()]

    def inside(self, guest: str) -> list[str]:
        return ["ip", "netns", "exec", self.topology.full_name(guest)]

    def folders(self) -> set[str]:
        return {str(path) for path in Path(tempfile.gettempdir()).glob("qperf-suite-*")}

    def inventory(self, key: str = "key", **addresses: str) -> Path:
        path = self.folder / "inventory.toml"
        lines = []
        for guest, address in ADDRESSES.items():
            login = addresses.get(guest, address)
            lines += [f"[guests.bridge.{guest}]", f'ssh = "root@{login}"']
            lines += [f'address = "{address}"', f'key = "{self.folder / key}"']
            lines += [f'known_hosts = "{self.folder / "known_hosts"}"']
        path.write_text("\n".join(lines) + "\n")
        return path

    def suite(
        self, inventory: Path, plan: str = "quick", only: str = "same-host/udp"
    ) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "qperf_suite.cli", "run", "--plan", plan]
        command += ["--rounds", "1", "--filter", only, "--inventory", str(inventory)]
        return subprocess.Popen(
            [*self.inside("suite"), *command, "--out", str(self.folder / "out")],
            stderr=subprocess.PIPE,
            text=True,
        )

    def samples(self) -> int:
        out = self.folder / "out"
        return len(load(Store(out)).samples) if (out / "plan.json").exists() else 0


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Topology(f"{PREFIX}i") as topology:
        made = Lab(tmp_path, topology)
        yield made
        for guest in [*made.daemons]:
            made.end(guest)


def test_guests_are_measured(lab: Lab) -> None:
    suite = lab.suite(lab.inventory())
    _, said = suite.communicate()
    assert suite.returncode == 0, said
    outcome = load(Store(lab.folder / "out"))
    assert (len(outcome.samples), outcome.failures, outcome.missing) == (4, [], 0)
    assert any("guests reached by ssh, Linux" in option for option in outcome.options)


def test_our_own_program_is_copied_and_removed(lab: Lab) -> None:
    before = lab.folders()
    killed = Path(tempfile.mkdtemp(prefix="qperf-suite-bridge-a1."))  # what a killed run leaves
    suite = lab.suite(lab.inventory(), "ci", "pingpong")
    _, said = suite.communicate()
    assert suite.returncode == 0, said
    (sample,) = load(Store(lab.folder / "out")).samples
    assert 0 < sample.details["p50_us"] <= sample.details["p99_us"]
    assert lab.folders() <= before
    assert not killed.exists()
    for guest in ADDRESSES:
        assert "sshd" in lab.running(guest)
        until(lambda guest=guest: not SERVERS & lab.running(guest), "the end of servers")


def test_a_guest_of_another_kind_is_measured_without_our_own_program(lab: Lab) -> None:
    tools = lab.folder / "bin"
    tools.mkdir()
    (tools / "uname").write_text("#!/bin/sh\necho riscv64\n")
    (tools / "uname").chmod(0o755)
    lab.end("a2")
    lab.serve("a2", path=f"{tools}:{os.environ['PATH']}")
    suite = lab.suite(lab.inventory(), "ci", "pingpong")
    _, said = suite.communicate()
    assert suite.returncode == 2
    assert "pingpong is for " in said
    assert "riscv64" in said


def test_what_is_wrong_is_told_of_every_guest_before_anything_is_measured(lab: Lab) -> None:
    suite = lab.suite(lab.inventory(key="other"))
    _, said = suite.communicate()
    assert suite.returncode == 2
    for guest, address in ADDRESSES.items():
        assert f"guest bridge-{guest} (root@{address}): root@{address}: Permission denied" in said
    assert not (lab.folder / "out").exists()


def test_an_unreachable_guest_is_told(lab: Lab) -> None:
    suite = lab.suite(lab.inventory(a2="10.7.0.77"))
    _, said = suite.communicate()
    assert suite.returncode == 2
    assert "guest bridge-a2 (root@10.7.0.77): ssh: connect to host 10.7.0.77 port 22" in said
    assert "bridge-a1" not in said


def test_a_missing_tool_is_told(lab: Lab) -> None:
    tools = lab.folder / "bin"
    tools.mkdir()
    for name in ("sh", "timeout", "setsid", "pkill", "uname"):
        (tools / name).symlink_to(shutil.which(name) or "")
    lab.end("a2")
    lab.serve("a2", path=str(tools))
    suite = lab.suite(lab.inventory())
    _, said = suite.communicate()
    assert suite.returncode == 2
    assert "guest bridge-a2 (root@10.7.0.2): qperf is not installed" in said
    assert said.count("is not installed") == 1


def test_a_guest_that_dies_half_way_is_told_and_the_run_goes_on_later(lab: Lab) -> None:
    suite = lab.suite(lab.inventory())
    until(lambda: suite.poll() is not None or lab.samples() > 0, "a sample", wait_s=60)
    lab.end("a1")
    _, said = suite.communicate()
    assert suite.returncode == 1
    assert "guest bridge-a1 (root@10.7.0.1): " in said
    assert "points are missing" in said
    before = lab.samples()
    assert 0 < before < 4
    lab.serve("a1")
    again = lab.suite(lab.inventory())
    _, said = again.communicate()
    assert again.returncode == 0, said
    assert f"{before} of 4 points are there" in said
    assert lab.samples() == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[guests", "Expected"),
        ("", "there is no [guests.SYSTEM.GUEST]"),
        ('[guests.bridge.a1]\nssh = "root@h"\n', "'address'"),
        ('[guests.bridge.a1]\nssh = "-oProxyCommand=x"\naddress = "10.7.0.1"\n', "user@host"),
        ('[guests.bridge.a1]\nssh = "root@h"\naddress = "10.7.0"\n', "10.7.0"),
        ("[guests]\nbridge = 3\n", "guests.bridge is not a table"),
        ('[guests.bridge.a1]\nssh = 5\naddress = "10.7.0.1"\n', "ssh is not a string"),
        ('[guests.bridge.a1]\nssh = "root@h"\naddress = 5\n', "address is not a string"),
        (
            '[guests.bridge.a1]\nssh = "root@h"\naddress = "10.7.0.1"\nport = "22"\n',
            "port a number",
        ),
        ('[guests."a/b".a1]\nssh = "root@h"\naddress = "10.7.0.1"\n', "is no name"),
        ('[guests.bridge.b7]\nssh = "root@h"\naddress = "10.7.0.1"\n', "no case of the plan"),
    ],
)
def test_a_wrong_inventory_is_wrong_usage(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "inventory.toml"
    path.write_text(text)
    command = [sys.executable, "-m", "qperf_suite.cli", "run", "--plan", "quick"]
    command += ["--inventory", str(path), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert words in done.stderr
