"""The command qperf-suite."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NoReturn

from qperf_suite.errors import SuiteError, UsageError
from qperf_suite.progress import Progress
from qperf_suite.report import report
from qperf_suite.runner import SYSTEMS, Plan, run
from qperf_suite.system import GUESTS
from qperf_suite.table import claims, table
from qperf_suite.workloads import demo_cases


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 when every point was measured, 1 when some failed, 2 for wrong usage."""
    chosen = _parser().parse_args(arguments)
    ours = os.getpid()

    def interrupt(number: int, frame: object) -> NoReturn:
        # pyroute2 forks to open sockets in namespaces, and ends these processes with SIGTERM:
        # they must not unwind, and tear down, what this process has built.
        if os.getpid() != ours:
            os._exit(1)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        return demo(chosen)
    except UsageError as error:
        print(f"qperf-suite: {error}", file=sys.stderr)
        return 2
    except SuiteError as error:
        print(f"qperf-suite: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("qperf-suite: interrupted, everything is torn down", file=sys.stderr)
        return 130


def demo(chosen: argparse.Namespace) -> int:
    """Run the demonstration and print its table and claims."""
    target: Path | None = chosen.json
    if target is not None and not target.absolute().parent.is_dir():
        raise UsageError(f"--json {target}: there is no folder {target.absolute().parent}")
    plan = Plan(
        systems=chosen.systems,
        cases=[case for case in demo_cases() if chosen.filter in case.name],
        rounds=chosen.rounds,
        seconds=chosen.seconds,
        cpus=pinning(os.sched_getaffinity(0)) if chosen.pin else None,
    )
    if not plan.cases:
        raise UsageError(f"--filter {chosen.filter}: no case is called so")
    outcome = run(plan, Progress())
    if target is not None:
        try:
            target.write_text(json.dumps(report(outcome), indent=1) + "\n")
        except OSError as error:
            raise UsageError(f"--json {target}: {error.strerror}") from error
    print(table(outcome))
    sentences = claims(outcome)
    if sentences:
        print("\n" + "\n".join(sentences))
    print(f"\nMeasured in {outcome.elapsed_s / 60:.1f} minutes.", file=sys.stderr)
    return 1 if outcome.failures else 0


def pinning(allowed: Collection[int]) -> dict[str, list[int]] | None:
    """One CPU for each guest, never the same for two that talk; None with a single CPU."""
    cpus = sorted(allowed)
    if len(cpus) < 2:
        return None
    places = range(len(GUESTS)) if len(cpus) >= len(GUESTS) else (0, 1, 1, 0)
    return {guest: [cpus[place]] for guest, place in zip(GUESTS, places, strict=True)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qperf-suite", description="Measures virtual switches in real guests."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "demo",
        help="vhost-user against bridge and masquerade, on one and across two hosts",
        description="Boots User Mode Linux guests on two hosts (network namespaces) and compares "
        "our switch with the kernel's bridge and masquerade. Needs root.",
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    command.add_argument("--rounds", type=_positive, default=3, metavar="N")
    command.add_argument(
        "--seconds", type=_positive, default=1, metavar="N", help="per point and round"
    )
    command.add_argument(
        "--systems",
        type=_systems,
        default=list(SYSTEMS),
        metavar="A,B",
        help=f"some of {','.join(SYSTEMS)}",
    )
    command.add_argument(
        "--filter", default="", metavar="TEXT", help="only cases with TEXT in their name"
    )
    command.add_argument(
        "--pin",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="tie each guest to one CPU, in all systems alike, so that rounds are comparable",
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000")
    return int(text)


def _systems(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in SYSTEMS]
    if unknown or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"{text!r}: choose each once from {', '.join(SYSTEMS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
