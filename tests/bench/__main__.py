"""python -m tests.bench NAME: see scripts/bench."""

import argparse
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from qperf_suite.errors import SuiteError
from tests.bench import latency, mesh, scale, vm2vm
from tests.bench.errors import BenchError, UsageError
from tests.bench.hugepages import hugepages
from tests.bench.plan import Bench
from tests.bench.priority import own_priority
from tests.bench.results import Results

# Each with the hugepages of 2 MiB that it needs: OVS, testpmd and the load generator together.
BENCHES = {
    "vm2vm": (vm2vm.run, 768),
    "latency": (latency.run, 768),
    "scale": (scale.run, 768),
    "mesh": (mesh.run, 0),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 when something could not be measured, 2 for wrong usage."""
    chosen = parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        results = measure(chosen)
    except UsageError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except (BenchError, SuiteError, AssertionError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted, everything is torn down", file=sys.stderr)
        return 130
    print(results.text())
    return 1 if results.failures else 0


def measure(chosen: argparse.Namespace) -> Results:
    target: Path | None = chosen.json
    if target is not None and not target.absolute().parent.is_dir():
        raise UsageError(f"--json {target}: there is no folder {target.absolute().parent}")
    if target is not None and target.is_dir():
        raise UsageError(f"--json {target}: is a folder; name a file in it")
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise UsageError("two CPUs are needed: one for the worker, one for the load")
    if os.geteuid() != 0:
        raise UsageError("needs root, for hugepages and priorities: run it with sudo")
    bench = Bench(
        rounds=chosen.rounds,
        wanted=lambda name: chosen.filter in name,
        worker_cpu=cpus[0],
        load_cpu=cpus[1],
        seconds=chosen.seconds,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # hundreds of guests, six files each
    run, pages = BENCHES[chosen.name]
    with hugepages(pages), own_priority():
        results = run(bench)
    if not results.samples and not results.failures:
        raise UsageError(f"--filter {chosen.filter}: no case is called so")
    if target is not None:
        results.write(target)
    return results


def interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(prog="scripts/bench", description="Compares with peers.")
    command.add_argument("name", choices=sorted(BENCHES), metavar="NAME", help=", ".join(BENCHES))
    command.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    command.add_argument("--rounds", type=positive, default=7, metavar="N")
    command.add_argument(
        "--seconds", type=float, default=1.0, metavar="S", help="of each loop or flow"
    )
    command.add_argument(
        "--filter", default="", metavar="TEXT", help="only cases with TEXT in their name"
    )
    return command


if __name__ == "__main__":
    sys.exit(main())
