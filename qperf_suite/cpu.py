"""CPU time: of this machine, and of the sessions that guests and switches run in."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class CpuTime:
    """Seconds since some beginning; differences are what counts.

    machine: everything that was not idle, the kernel's interrupts as well.  steal: what another
    machine had.  guests, switch: of these processes alone.
    """

    machine: float
    steal: float
    guests: float
    switch: float

    def since(self, before: "CpuTime") -> dict[str, float]:
        """What was used meanwhile, by name with its unit."""
        return {
            f"{name}_s": round(getattr(self, name) - getattr(before, name), 4)
            for name in ("machine", "steal", "guests", "switch")
        }


def cpu_time(guests: Collection[int], switch: Collection[int]) -> CpuTime:
    """Used until now. guests, switch: sessions, by their first process (proc(5), field 6)."""
    first = Path("/proc/stat").read_text().split("\n", 1)[0]
    user, nice, system, _, _, irq, softirq, steal = map(int, first.split()[1:9])
    used = of_sessions({*guests, *switch})
    return CpuTime(
        (user + nice + system + irq + softirq) / TICKS_PER_S,
        steal / TICKS_PER_S,
        sum(used.get(session, 0.0) for session in guests),
        sum(used.get(session, 0.0) for session in switch),
    )


def of_sessions(sessions: Collection[int]) -> dict[int, float]:
    """Seconds used until now, by session; those without processes are left out."""
    used: dict[int, float] = {}
    for name in os.listdir("/proc") if sessions else ():
        if not name.isdecimal():
            continue
        try:
            stat = Path("/proc", name, "stat").read_text()
        except OSError:
            continue
        # The name in parentheses may hold anything, parentheses as well.
        fields = stat.rpartition(")")[2].split()
        session = int(fields[3])
        if session in sessions:
            # With the children that it has waited for.
            used[session] = used.get(session, 0.0) + sum(map(int, fields[11:15])) / TICKS_PER_S
    return used
