"""Loads from counters."""

import pytest

from vswitch.core import TIMED_EVERY
from vswitch.loads import Meter


def worker(clock: int, busy: int) -> dict[str, int]:
    return {"cycles_clock": clock, "cycles_busy": busy}


def queue(on: int, timed: int) -> tuple[int, dict[str, int]]:
    return on, {"timed_cycles": timed}


def test_loads_are_shares_since_the_last_look() -> None:
    meter = Meter()
    meter.loads([worker(0, 0), worker(0, 0)], {"a": queue(0, 10), "b": queue(1, 0)})
    loads, other = meter.loads(
        [worker(17_000, 10_000), worker(34_000, 3_400)],
        {"a": queue(0, 510), "b": queue(1, 200), "new": queue(1, 99)},
    )
    assert loads == {
        "a": 500 * TIMED_EVERY / 17_000,
        "b": 200 * TIMED_EVERY / 34_000,
        "new": 0,
    }
    assert other[0] == pytest.approx(10_000 / 17_000 - loads["a"])
    assert other[1] == 0  # an estimate may exceed what was counted


def test_another_queue_at_the_same_address_starts_from_nothing() -> None:
    meter = Meter()
    meter.loads([worker(0, 0)], {"a": queue(0, 1000)})
    loads, _ = meter.loads([worker(1000, 500)], {"a": queue(0, 10)})
    assert loads == {"a": 0}


def test_nothing_is_known_while_workers_come_and_go() -> None:
    meter = Meter()
    meter.loads([worker(0, 0)], {"a": queue(0, 0)})
    assert meter.loads([worker(9, 9), worker(9, 9)], {"a": queue(0, 9)}) == ({}, [0.0, 0.0])
