"""Becomes another program, under conditions: run as a script, it imports nothing of ours.

    launch.py [--parent PID] [--netns PATH] [--cpus 0,1] [--preload LIBRARY] -- COMMAND…

The program is killed when the thread that started it ends; it does not begin when that process,
the parent, has ended before.
"""

import argparse
import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
CLONE_NEWNET = 0x40000000  # linux/sched.h


def main() -> None:
    """Apply the conditions, then exec; exits with 2 when one cannot be met."""
    parser = argparse.ArgumentParser(prog="launch.py")
    parser.add_argument("--parent", type=int, default=os.getppid())
    parser.add_argument("--netns")
    parser.add_argument("--cpus")
    parser.add_argument("--preload")
    parser.add_argument("command", nargs="+")
    chosen = parser.parse_args()
    libc = ctypes.CDLL(None, use_errno=True)

    def call(what: str, result: int) -> None:
        if result != 0:
            sys.exit(f"launch.py: {what}: {os.strerror(ctypes.get_errno())}")

    if chosen.netns is not None:
        with open(chosen.netns, "rb") as namespace:
            call(chosen.netns, libc.setns(namespace.fileno(), CLONE_NEWNET))
    if chosen.cpus is not None:
        os.sched_setaffinity(0, {int(cpu) for cpu in chosen.cpus.split(",")})
    if chosen.preload is not None:
        os.environ["LD_PRELOAD"] = chosen.preload
    call("PR_SET_PDEATHSIG", libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    # Of a parent that ended before there is no signal any more.
    if os.getppid() != chosen.parent:
        sys.exit("launch.py: who started this has ended")
    os.execvp(chosen.command[0], chosen.command)


if __name__ == "__main__":
    main()
