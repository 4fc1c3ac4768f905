"""Priority over whatever else runs on the machine, so that figures are worth comparing."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OWN = Path("/proc/self/autogroup")


def prefer(pid: int) -> None:
    """Others get one part in ninety of a CPU beside this process's present threads."""
    group = Path(f"/proc/{pid}/autogroup")
    if group.exists():  # where it does, being nice counts only within a session
        group.write_text("-20")
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(task.name), -20)


@contextmanager
def own_priority() -> Iterator[None]:
    """Gives back what this process's session gets by prefer()."""
    found = re.search(r"nice (-?\d+)", OWN.read_text()) if OWN.exists() else None
    try:
        yield
    finally:
        if found:
            OWN.write_text(found[1])


@contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """The calling thread stays on a CPU meanwhile."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
