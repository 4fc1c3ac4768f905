"""What is asked of a benchmark, and where one run of a system takes place."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.results import Results
from tests.bench.systems import Needs, System
from tests.fakes.closing import Closing


@dataclass(frozen=True)
class Bench:
    """wanted: whether a case was asked for; seconds: of each loop; say: tells of progress."""

    rounds: int
    wanted: Callable[[str], bool]
    worker_cpu: int
    load_cpu: int
    seconds: float
    say: Callable[[str], None]


@dataclass(frozen=True)
class Turn:
    """One system's turn in one round."""

    bench: Bench
    kind: type[System]
    number: int
    results: Results

    def add(self, case: str, unit: str, value: float) -> None:
        self.results.add(self.kind.name, case, unit, value, self.number)

    def system(self, place: "Place", needs: Needs) -> System:
        return self.kind(place.own, place.sockets, self.bench.worker_cpu, needs)


class Place(Closing):
    """A folder for one run of a system, and the sockets of its guests."""

    def __init__(self, guests: int = 2) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vsw-bench-")
        folder = Path(self._folder.name)
        self.own = folder / "system"
        self.own.mkdir()
        self.sockets = [folder / f"{i}.sock" for i in range(guests)]

    def close(self) -> None:
        self._folder.cleanup()
