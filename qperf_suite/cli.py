"""The command qperf-suite."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from qperf_suite import commands
from qperf_suite.errors import SuiteError, UsageError
from qperf_suite.plans import PLANS
from qperf_suite.runner import QEMU_ONLY, QEMU_TOO, SYSTEMS

# SIGHUP: the terminal is lost.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 when every point was measured, 1 when some failed, 2 for wrong usage."""
    chosen = _parser().parse_args(arguments)
    ours = os.getpid()

    def interrupt(number: int, frame: object) -> NoReturn:
        # pyroute2 forks to open sockets in namespaces, and ends these processes with SIGTERM:
        # they must not unwind, and tear down, what this process has built.
        if os.getpid() != ours:
            os._exit(1)
        # Tearing down is not interrupted a second time.
        for again in ENDING:
            signal.signal(again, signal.SIG_IGN)
        raise KeyboardInterrupt

    # What is ignored stays so for SIGHUP: the run was begun with nohup(1).
    kept = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    before = {number: signal.signal(number, interrupt) for number in ENDING if number not in kept}
    try:
        return int(chosen.act(chosen))
    except UsageError as error:
        print(f"qperf-suite: {error}", file=sys.stderr)
        return 2
    except SuiteError as error:
        print(f"qperf-suite: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may be gone
            print("qperf-suite: interrupted, everything is torn down", file=sys.stderr)
        return 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qperf-suite", description="Measures virtual switches in real guests."
    )
    actions = parser.add_subparsers(dest="command", required=True)
    run = actions.add_parser(
        "run",
        help="measure a plan into a folder, or go on where it stopped",
        description="Boots User Mode Linux guests on two hosts (network namespaces) and measures a "
        "plan, point by point. Interrupted or killed, the same command goes on. Needs root.",
    )
    run.add_argument("--plan", choices=PLANS, required=True)
    run.add_argument("--out", type=Path, required=True, metavar="DIR")
    run.add_argument(
        "--inventory", type=Path, metavar="FILE", help="guests that run already, reached by ssh"
    )
    run.add_argument("--seed", type=_positive, default=1, metavar="N", help="of the random order")
    _matrix(run)
    run.set_defaults(act=commands.run, seconds=None)
    demo = actions.add_parser(
        "demo",
        help="the plan quick, without a folder: a table",
        description="Compares our switch with the kernel's bridge and masquerade. Needs root.",
    )
    demo.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    demo.add_argument(
        "--seconds", type=_positive, default=1, metavar="N", help="per point and round"
    )
    _matrix(demo)
    demo.set_defaults(act=commands.demo, plan="quick", seed=1)
    report = actions.add_parser("report", help="write a run's report: HTML, Markdown, CSV, plots")
    report.add_argument("folder", type=Path, metavar="DIR")
    report.set_defaults(act=commands.write_report)
    compare = actions.add_parser("compare", help="what changed between two runs, beyond noise")
    compare.add_argument("before", type=Path, metavar="DIR")
    compare.add_argument("after", type=Path, metavar="DIR")
    compare.set_defaults(act=commands.compare)
    clean = actions.add_parser(
        "clean", help="remove what killed runs left: namespaces, processes, folders"
    )
    clean.set_defaults(act=commands.clean)
    return parser


def _matrix(parser: argparse.ArgumentParser) -> None:
    """What every kind of run can be told."""
    parser.add_argument("--rounds", type=_positive, default=3, metavar="N")
    parser.add_argument(
        "--systems",
        type=_systems,
        metavar="A,B",
        help=f"some of {','.join(SYSTEMS)}",
    )
    parser.add_argument(
        "--filter",
        default="",
        metavar="TEXT",
        help="only cases with TEXT in their name; with one of *?[ in it a pattern for all of it",
    )
    parser.add_argument(
        "--pin",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="tie each guest to one CPU, in all systems alike, so that rounds are comparable",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000")
    return int(text)


def _systems(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in SYSTEMS]
    if unknown or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"{text!r}: choose each once from {', '.join(SYSTEMS)}")
    if QEMU_ONLY & set(names) and set(names) - QEMU_TOO:
        raise argparse.ArgumentTypeError(
            f"{text!r}: {', '.join(QEMU_ONLY)} has QEMU guests, as of the others only "
            f"{', '.join(QEMU_TOO - QEMU_ONLY)} has"
        )
    return names


if __name__ == "__main__":
    sys.exit(main())
