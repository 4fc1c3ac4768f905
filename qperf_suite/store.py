"""A run's folder: every point on its own, as soon as it is measured, so that a run survives.

    plan.json           what is measured; a run continues only with the same
    points.jsonl        one line for each attempt, in the order of measuring
    environment.jsonl   one line for each start of the suite, and for each part that booted
    raw/                what the tools printed, one file for each attempt
    lock                held while a run goes on

A killed run leaves at most one line that is not whole; it is cut off.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qperf_suite.errors import UsageError
from qperf_suite.plans import Part, Plan, Point
from qperf_suite.workloads import Case, Pace


class Store:
    """One folder. As a context it is locked, and may be written to; otherwise it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: int | None = None
        self._done: set[str] = set()
        self._attempts = 0

    def __enter__(self) -> Self:
        try:
            (self.folder / "raw").mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise UsageError(f"cannot write to {self.folder}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            self._lock = None
            raise UsageError(f"{self.folder}: another run is writing here") from error
        for name in ("points.jsonl", "environment.jsonl"):
            _cut_torn_line(self.folder / name)
        records = self.records()
        self._done = {record["point"] for record in records if "value" in record}
        self._attempts = len(list((self.folder / "raw").iterdir()))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def adopt(self, plan: Plan) -> bool:
        """Begin this plan, or continue it; returns whether there was one. UsageError: another.

        A plan that is continued keeps the guests that it was begun with: see plan().
        """
        path = self.folder / "plan.json"
        wanted = json.loads(json.dumps(asdict(plan)))
        if path.exists():
            found = _load(path)
            ours, theirs = _without_guests(wanted), _without_guests(found)
            if theirs != ours:
                differing = [key for key in ours if theirs.get(key) != ours[key]]
                raise UsageError(
                    f"{self.folder} holds another run (other {', '.join(differing)}): continue "
                    "it with the options that it was begun with, or choose another folder"
                )
            return True
        scratch = path.with_suffix(".tmp")
        scratch.write_text(json.dumps(wanted, indent=1) + "\n")
        scratch.rename(path)
        return False

    def plan(self) -> Plan:
        """What was begun here."""
        path = self.folder / "plan.json"
        if not path.exists():
            raise UsageError(f"{self.folder} holds no run: there is no plan.json")
        found = _load(path)
        try:
            parts = [
                Part(**{**part, "cases": [Case(**case) for case in part["cases"]]})
                for part in found["parts"]
            ]
            return Plan(**{**found, "parts": parts, "pace": Pace(**found["pace"])})
        except (LookupError, TypeError) as error:
            raise UsageError(f"{path} is not a plan of this version") from error

    def needs(self, point: Point) -> bool:
        """Whether it has not been measured yet; a failed one still has to be."""
        return point.name not in self._done

    def keep(self, point: Point, record: Mapping[str, Any], raw: str) -> None:
        """Write an attempt: "value" is in a record that succeeded, "failure" in others."""
        name = f"raw/{self._attempts:05}-{point.name.replace('/', '-')}.txt"
        self._attempts += 1
        (self.folder / name).write_text(raw)
        line = {"point": point.name, "part": point.part, "round": point.round}
        line |= {"system": point.system, "case": point.case.name, "unit": point.case.unit}
        self._append("points.jsonl", {**line, **record, "raw": name})
        if "value" in record:
            self._done.add(point.name)

    def note(self, record: Mapping[str, Any]) -> None:
        """Write something of the environment."""
        self._append("environment.jsonl", record)

    def records(self) -> list[dict[str, Any]]:
        """Every attempt, in the order of measuring."""
        return _lines(self.folder / "points.jsonl")

    def environment(self) -> list[dict[str, Any]]:
        """Every note."""
        return _lines(self.folder / "environment.jsonl")

    def starts(self) -> list[dict[str, Any]]:
        """The machine at each start of the suite."""
        return [note["environment"] for note in self.environment() if "environment" in note]

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        with (self.folder / name).open("a") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _load(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} is not a plan")
    return found


def _without_guests(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Which guests boot follows from the cases; there may be more of them than are needed."""
    parts = plan.get("parts")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        return dict(plan)
    return {**plan, "parts": [{**part, "guests": []} for part in parts]}


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that may still be written to."""
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0]
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise UsageError(f"{path} is damaged: {error}") from error


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
