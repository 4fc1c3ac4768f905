"""What a plan needs of this machine is told at once, before anything is made. No privilege."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from qperf_suite import image, ovs, preflight
from qperf_suite.cli import main
from qperf_suite.errors import UsageError
from qperf_suite.plans import PLANS, Plan


class Machine:
    """One that has everything; each method takes something away."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch = patch
        self._lacks: set[str] = set()
        self.there = folder / "vsw"
        self.there.touch()
        patch.setattr(os, "geteuid", lambda: 0)
        patch.setattr(preflight.sys, "executable", str(folder / "python"))
        patch.setattr(preflight.shutil, "which", self._which)
        patch.setattr(preflight, "TUN", Path("/dev/null"))
        patch.setattr(image, "UML_KERNEL", self.there)
        patch.setattr(image, "CACHE", folder / "cache")
        patch.setattr(ovs, "installed", lambda: "ovs" not in self._lacks)
        self.room_mib(100_000)

    def lacks(self, *names: str) -> None:
        self._lacks |= set(names)

    def room_mib(self, free: int) -> None:
        room = SimpleNamespace(f_bavail=free * 256, f_frsize=4096)
        self._patch.setattr(os, "statvfs", lambda _: room)

    def _which(self, name: str) -> str | None:
        return None if name in self._lacks else f"/usr/bin/{name}"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path)


def told(plan: Plan) -> list[str]:
    with pytest.raises(UsageError) as raised:
        preflight.check(plan)
    first, *lines = str(raised.value).splitlines()
    assert first == "this machine cannot measure:"
    return [line.strip() for line in lines]


def with_systems(*systems: str) -> Plan:
    plan = PLANS["quick"]()
    return Plan("quick", plan.parts, systems)


def test_a_machine_with_everything_is_fine(machine: Machine) -> None:
    for make in PLANS.values():
        preflight.check(make())
    preflight.check(with_systems("vhost-user", "ovs-dpdk"))


def test_all_that_is_missing_is_told_at_once(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.lacks("ip", "nft", "gcc", "qperf", "busybox")
    machine.there.unlink()
    machine.room_mib(64)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(preflight, "TUN", machine.there)
    lines = told(PLANS["quick"]())
    assert lines[0] == "network namespaces need root: run this as root"
    assert lines[1].endswith("vsw is missing: modprobe tun")
    packages = "qperf busybox-static iproute2 nftables gcc libc6-dev user-mode-linux"
    assert lines[2] == f"programs are missing: apt-get install {packages}"
    assert lines[3].endswith("vsw is missing: run scripts/build first")
    assert lines[4] == "/dev/shm has 64 MiB free, and guests will use 960: remount it larger"


def test_only_what_the_systems_need_has_to_be_there(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.lacks("nft", "ovs", "qemu-system-x86_64")
    monkeypatch.setattr(preflight, "TUN", machine.there)
    preflight.check(with_systems("vhost-user"))
    (line,) = told(with_systems("vhost-user", "ovs-dpdk"))
    assert line.endswith("apt-get install openvswitch-switch-dpdk qemu-system-x86")
    machine.lacks("gcc")
    assert len(told(with_systems("vhost-user"))) == 1
    (cache := image.CACHE).mkdir()
    kept = image._kept(image.PINGPONG, "pingpong", image.PINGPONG_FLAGS)
    kept.touch()
    assert image.compiled(uml=False)
    assert not image.compiled(uml=True)
    assert kept.parent == cache


def test_nothing_is_made_before(machine: Machine, tmp_path: Path) -> None:
    machine.lacks("ip")
    assert main(["run", "--plan", "ci", "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()
    assert main(["demo"]) == 2
