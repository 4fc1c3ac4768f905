"""The search for the rate without loss, over guests that are models: no privilege."""

import json
import random
import re
from collections.abc import Callable

import pytest

from qperf_suite.errors import GuestError, ToolRefusedError
from qperf_suite.lossless import BUFFERED_BYTES, Trials, search, trial_command
from qperf_suite.plans import PLANS
from qperf_suite.workloads import LOSSLESS, SEARCH_S, Case

CASE = Case("same-host", LOSSLESS, 64)
ADDRESS = "10.5.0.2"
BUFFER = 212992


def answer(sent: int, received: int, *, unread: int = 0, size: int = 64) -> str:
    end = {
        "sum_sent": {"packets": sent},
        "sum_received": {"packets": sent - unread, "bytes": received * size},
    }
    start = {"test_start": {"blksize": size}, "rcvbuf_actual": BUFFER}
    return json.dumps({"start": start, "end": end})


def load_of(command: str) -> int:
    found = re.search(r"--bitrate (\d+) ", command)
    assert found
    return int(found[1]) // (8 * 64)


def path(capacity: float, *, sender: float = 1e9, seed: int = 1) -> Callable[[str], str]:
    """Delivers so many per second, 3 % more or less; in one trial of ten one is lost anyhow."""
    rng = random.Random(seed)

    def ask(command: str) -> str:
        # iperf3 is a little late with its timer.
        sent = min(int(load_of(command) * 0.999), int(sender))
        received = min(sent, int(capacity * rng.uniform(0.97, 1.03)))
        return answer(sent, received - (rng.random() < 0.1))

    return ask


@pytest.mark.parametrize("capacity", [1_000, 40_000, 300_000])
@pytest.mark.parametrize("seed", range(5))
def test_the_rate_without_loss_is_found(capacity: int, seed: int) -> None:
    reading = search(path(capacity, seed=seed), CASE, ADDRESS)
    assert reading.value == pytest.approx(capacity, rel=0.1)
    assert 0.98 * reading.value <= reading.details["half_percent_lost_per_s"] < 1.1 * capacity
    assert reading.details["trials"] <= 40


def test_a_search_takes_about_as_long_as_announced() -> None:
    trials = [search(path(4e4, seed=n), CASE, ADDRESS).details["trials"] for n in range(20)]
    assert 0.5 * SEARCH_S < sum(trials) / len(trials) < SEARCH_S
    assert PLANS["lossless"]().total_s() < 15 * 60


def test_what_the_guest_cannot_send_is_not_claimed() -> None:
    reading = search(path(1e9, sender=50_000), CASE, ADDRESS)
    assert reading.value == pytest.approx(50_000, rel=0.05)


def test_a_path_that_always_loses_has_no_rate() -> None:
    def lossy(command: str) -> str:
        load = load_of(command)
        return answer(load, load * 9 // 10)

    with pytest.raises(ToolRefusedError, match="loss even at 100 packets/s"):
        search(lossy, CASE, ADDRESS)


def test_a_path_that_never_loses_is_as_fast_as_was_asked_for() -> None:
    def perfect(command: str) -> str:
        return answer(load_of(command), load_of(command))

    assert search(perfect, CASE, ADDRESS).value == pytest.approx(1e6)


@pytest.mark.parametrize("error", [ToolRefusedError("iperf3: no route"), GuestError("is gone")])
def test_a_failure_ends_the_search(error: Exception) -> None:
    def fail(command: str) -> str:
        raise error

    with pytest.raises(type(error), match=str(error)):
        search(fail, CASE, ADDRESS)


@pytest.mark.parametrize(
    ("sent", "received", "unread", "lost"),
    [
        (1000, 1000, 0, 0),
        (1000, 999, 0, 1),
        (1000, 900, 100, 0),
        # What does not fit into the receiver's buffer was lost.
        (1000, 0, 1000, 1000 - BUFFER // (64 + BUFFERED_BYTES)),
        # The timer's lateness is no loss, a tenth that was not sent is.
        (995, 995, 0, 0),
        (900, 900, 0, 100),
    ],
)
def test_what_counts_as_lost(sent: int, received: int, unread: int, lost: int) -> None:
    trials = Trials(lambda command: answer(sent, received, unread=unread), CASE, ADDRESS)
    found = trials.measure(intended_duration=1.0, intended_load=1000.0)
    assert found.loss_count + found.unsent_count == lost


def test_the_command_of_a_trial() -> None:
    assert trial_command(ADDRESS, 64, 1000.4) == (
        "iperf3 --udp --json --time 1 --length 64 --bitrate 512205 --client 10.5.0.2"
    )
