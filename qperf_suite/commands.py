"""What the commands of qperf-suite do; their exit status is what they return."""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from qperf_suite import leftovers, report
from qperf_suite.comparison import changes, conditions
from qperf_suite.environment import commits, environment
from qperf_suite.errors import UsageError
from qperf_suite.figures import figures
from qperf_suite.outcome import Outcome, load
from qperf_suite.plans import PLANS, Plan
from qperf_suite.preflight import check as check_machine
from qperf_suite.progress import Progress
from qperf_suite.raster import missing
from qperf_suite.remote import booting, fitting, preflight, read_inventory
from qperf_suite.runner import run as run_plan
from qperf_suite.store import Store
from qperf_suite.table import claims, ratios, table


def run(chosen: argparse.Namespace) -> int:
    """Measure a plan into a folder, or what is missing there."""
    plan, boot = chosen_plan(chosen), None
    if chosen.inventory is not None:
        if chosen.systems:
            raise UsageError("--systems: the inventory names them")
        inventory = read_inventory(chosen.inventory)
        plan, boot = fitting(plan, inventory), booting(inventory)
        plan = preflight(plan, inventory)
    else:
        check_machine(plan)
    with Store(chosen.out) as store:
        continued = store.adopt(plan)
        plan = store.plan() if boot is None else plan
        _clean_up()
        print(announcement(plan, store, continued), file=sys.stderr)
        described = environment(plan.systems if boot is None else ())
        earlier = commits(store.starts())
        if earlier and commits([described]) != earlier[-1:]:
            print(
                f"warning: begun with commit {', '.join(earlier)}, and goes on with "
                f"{commits([described])[0]}",
                file=sys.stderr,
            )
        store.note({"environment": described})
        run_plan(plan, store, Progress(), boot)
        outcome = load(store)
    print(f"{chosen.out}: {summary(outcome)}", file=sys.stderr)
    if outcome.samples:
        print(f"report: {_report(chosen.out)[0]}", file=sys.stderr)
    return 1 if outcome.failures or outcome.missing else 0


def write_report(chosen: argparse.Namespace) -> int:
    """Write a run's report into its folder."""
    written = _report(chosen.folder)
    print(f"{written[0]}, and {len(written) - 1} files beside it")
    return 0


def compare(chosen: argparse.Namespace) -> int:
    """Say what changed from one run to another."""
    before, after = Store(chosen.before), Store(chosen.after)
    found, words = changes(load(before), load(after))
    for row in [found.head, *found.rows] if found.rows else []:
        print(f"{row[0]:<30} {row[1]:<11} {row[2]:>14} {row[3]:>14} {row[4]:>19} {row[5]}".rstrip())
    print(words)
    for line in conditions(before, after):
        print(line)
    return 0


def demo(chosen: argparse.Namespace) -> int:
    """Run the plan quick and print its table and claims."""
    target: Path | None = chosen.json
    if target is not None and not target.absolute().parent.is_dir():
        raise UsageError(f"--json {target}: there is no folder {target.absolute().parent}")
    plan = chosen_plan(chosen)
    check_machine(plan)
    begun_s = time.monotonic()
    _clean_up()
    with tempfile.TemporaryDirectory(prefix=f"{leftovers.PREFIX}{os.getpid()}-demo-") as folder:
        with Store(Path(folder)) as store:
            store.adopt(plan)
            print(announcement(plan, store, False), file=sys.stderr)
            run_plan(plan, store, Progress())
            outcome = load(store)
        described = environment(plan.systems)
    compared = ratios(outcome)
    if target is not None:
        try:
            target.write_text(json.dumps(figures(outcome, described, compared), indent=1) + "\n")
        except OSError as error:
            raise UsageError(f"--json {target}: {error.strerror}") from error
    print(table(outcome, compared))
    sentences = claims(compared)
    if sentences:
        print("\n" + "\n".join(sentences))
    print(f"\nMeasured in {(time.monotonic() - begun_s) / 60:.1f} minutes.", file=sys.stderr)
    return 1 if outcome.failures or outcome.missing else 0


def clean(chosen: argparse.Namespace) -> int:
    """Remove what killed runs left."""
    removed = leftovers.clean()
    print("\n".join(removed) if removed else "nothing is left of killed runs")
    return 0


def chosen_plan(chosen: argparse.Namespace) -> Plan:
    """The named plan with what the command line changes of it; UsageError when nothing is left."""
    plan = PLANS[chosen.plan]()
    pace = plan.pace
    if chosen.seconds is not None:
        pace = replace(
            pace,
            qperf_s=chosen.seconds,
            large_s=chosen.seconds,
            mtr_cycles=round(chosen.seconds / pace.mtr_interval_s),
            iperf_s=chosen.seconds,
        )
    systems = chosen.systems or plan.systems
    plan = replace(
        plan, pace=pace, systems=systems, rounds=chosen.rounds, pin=chosen.pin, seed=chosen.seed
    ).filtered(chosen.filter)
    if not plan.parts:
        raise UsageError(f"--filter {chosen.filter}: no case is called so")
    return plan


def announcement(plan: Plan, store: Store, continued: bool) -> str:
    """What will be measured, and how long that takes."""
    points = {part.name: [p for p in plan.points(part) if store.needs(p)] for part in plan.parts}
    total = sum(len(plan.points(part)) for part in plan.parts)
    count = sum(len(found) for found in points.values())
    expected_s = plan.rest_s([point for found in points.values() for point in found])
    what = f"plan {plan.name}: {len(plan.cases)} cases, {', '.join(plan.systems)}, "
    what += f"{plan.rounds} rounds, order of seed {plan.seed}; "
    if continued:
        what += f"{total - count} of {total} points are there, "
    return what + f"{count} points to measure, about {duration(expected_s)}"


def summary(outcome: Outcome) -> str:
    """How much of a plan there is."""
    words = [f"{len(outcome.samples)} points measured"]
    if outcome.failures:
        words.append(f"{len(outcome.failures)} failed")
    if outcome.missing:
        words.append(f"{outcome.missing} missing")
    return ", ".join(words)


def duration(seconds: float) -> str:
    """ "3 minutes", "2 hours 5 minutes"."""
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"{minutes} minute{'s' if minutes > 1 else ''}"
    return f"{minutes // 60} hour{'s' if minutes >= 120 else ''} {minutes % 60} minutes"


def _clean_up() -> None:
    for line in leftovers.clean():
        print(f"removed what a killed run left: {line}", file=sys.stderr)


def _report(folder: Path) -> list[Path]:
    written = report.write(folder)
    if missing():
        print(missing(), file=sys.stderr)
    return written
