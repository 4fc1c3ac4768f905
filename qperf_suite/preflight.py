"""What a plan needs of this machine, looked at before anything is made."""

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from qperf_suite import image, ovs
from qperf_suite.errors import UsageError
from qperf_suite.plans import KINDS_OF_GUESTS, Part, Plan

TAPS = {"bridge", "masquerade"}
QEMU = "ovs-dpdk"
MIB = 1024 * 1024
SHM = Path("/dev/shm")
TUN = Path("/dev/net/tun")
# Of what guests are told they have; in the middle of the largest messages a quarter was in use.
USED_SHARE = 0.25


def check(plan: Plan) -> None:
    """Raises UsageError, which lists all that is missing."""
    missing = list(_missing(plan))
    if missing:
        raise UsageError("\n  ".join(["this machine cannot measure:", *missing]))


def _missing(plan: Plan) -> Iterator[str]:
    systems = set(plan.systems)
    if os.geteuid() != 0:
        yield "network namespaces need root: run this as root"
    if systems & TAPS and not _is_device(TUN):
        yield f"{TUN} is missing: modprobe tun"
    packages = image.missing_packages()
    if not shutil.which("ip"):
        packages.append("iproute2")
    if "masquerade" in systems and not shutil.which("nft"):
        packages.append("nftables")
    if not shutil.which("gcc") and not image.compiled(uml=QEMU not in systems):
        packages.append("gcc libc6-dev")
    if QEMU in systems:
        packages += _of_qemu()
    elif not image.UML_KERNEL.exists():
        packages.append("user-mode-linux")
    if packages:
        yield f"programs are missing: apt-get install {' '.join(packages)}"
    switch = Path(sys.executable).with_name("vsw")
    if "vhost-user" in systems and not switch.exists():
        yield f"{switch} is missing: run scripts/build first"
    if QEMU not in systems:
        yield from _room(plan)


def _of_qemu() -> Iterator[str]:
    if not ovs.installed():
        yield "openvswitch-switch-dpdk"
    if not shutil.which("qemu-system-x86_64"):
        yield "qemu-system-x86"


def _room(plan: Plan) -> Iterator[str]:
    """User Mode Linux has its memory in files there."""
    wanted_mib = max(round(memory_mib(plan, part) * USED_SHARE) for part in plan.parts)
    room = os.statvfs(SHM)
    free_mib = room.f_bavail * room.f_frsize // MIB
    if free_mib < wanted_mib:
        yield f"{SHM} has {free_mib} MiB free, and guests will use {wanted_mib}: remount it larger"


def memory_mib(plan: Plan, part: Part) -> int:
    """What a part's guests are told they have."""
    kinds = sum(KINDS_OF_GUESTS.get(system, 1) for system in plan.systems)
    return kinds * len(part.guests) * part.memory_mib


def _is_device(path: Path) -> bool:
    try:
        return stat.S_ISCHR(path.stat().st_mode)
    except OSError:
        return False
