"""Packets per second without loss: MLRsearch (RFC 9971) over trials of iperf3's UDP.

A trial sends for a second at a steady rate.  The search has two goals at once: the highest rate at
which nothing is lost, and that at which half a percent may be; of the trials that decide about a
rate half may be worse, because few CPUs stumble now and then under any load.  It ends within 2 %.

What iperf3 left unread when it stopped is not lost, as far as it can have stood in the receiver's
buffer.  A rate that the guest cannot send counts as lost, too: the search ends below it.
"""

from collections.abc import Callable
from dataclasses import replace

from MLRsearch import Config, MeasurementResult, MultipleLossRatioSearch, SearchGoal

from qperf_suite.errors import ToolRefusedError
from qperf_suite.parse import Reading, iperf3_udp
from qperf_suite.workloads import Case

TRIAL_S = 1.0
NOTHING_LOST = SearchGoal(
    loss_ratio=0.0,
    exceed_ratio=0.5,
    relative_width=0.02,
    initial_trial_duration=TRIAL_S,
    final_trial_duration=TRIAL_S,
    duration_sum=3 * TRIAL_S,
    preceding_targets=1,
    expansion_coefficient=2,
    fail_fast=False,
)
LITTLE = 0.005
LITTLE_LOST = replace(NOTHING_LOST, loss_ratio=LITTLE)
LOAD_MIN, LOAD_MAX = 100.0, 1e6
SEARCH_S_MAX = 60.0
# iperf3 paces by a timer, and is a little late; what it sent is the load then.
SENT_MIN = 0.99
# What a datagram takes of a buffer beyond its bytes, at least: sk_buff and skb_shared_info.
BUFFERED_BYTES = 576


def at_limit(rate: float, lost: float = 0.0) -> bool:
    """Is this the highest rate that search() tries?  Then it is a lower bound. lost: may be."""
    return rate >= LOAD_MAX * (1 - lost)


class Trials:
    """MLRsearch's measurer: one guest sends to another. ask: runs a command, returns its output."""

    def __init__(self, ask: Callable[[str], str], case: Case, address: str) -> None:
        self._ask = ask
        self._size_bytes = case.size_bytes or 0
        self._address = address
        self.count = 0

    def measure(self, intended_duration: float, intended_load: float) -> MeasurementResult:
        """Called by the library, with these names; raises ToolError."""
        self.count += 1
        command = trial_command(self._address, self._size_bytes, intended_load)
        trial = iperf3_udp(self._ask(command), self._size_bytes)
        wanted = round(intended_load * intended_duration)
        kept_up = trial.sent >= SENT_MIN * wanted
        unread = min(trial.unread, trial.buffer_bytes // (self._size_bytes + BUFFERED_BYTES))
        return MeasurementResult(
            intended_duration=intended_duration,
            intended_load=intended_load,
            offered_count=trial.sent,
            forwarding_count=trial.received + unread,
            intended_count=trial.sent if kept_up else wanted,
        )


def trial_command(address: str, size_bytes: int, load: float) -> str:
    """The shell command of one trial."""
    bits = round(load * size_bytes * 8)
    return (
        f"iperf3 --udp --json --time {TRIAL_S:.0f} --length {size_bytes} --bitrate {bits} "
        f"--client {address}"
    )


def search(ask: Callable[[str], str], case: Case, address: str) -> Reading:
    """The rate without loss. details: that with half a percent, and how many trials it took."""
    config = Config(
        goals=[NOTHING_LOST, LITTLE_LOST],
        min_load=LOAD_MIN,
        max_load=LOAD_MAX,
        search_duration_max=SEARCH_S_MAX,
        warmup_duration=None,
    )
    trials = Trials(ask, case, address)
    try:
        found = MultipleLossRatioSearch(config).search(trials, debug=lambda words: None)
    except RuntimeError as error:
        raise ToolRefusedError(f"MLRsearch: {error}") from error
    rates = [found[goal].conditional_throughput for goal in (NOTHING_LOST, LITTLE_LOST)]
    if None in rates:
        raise ToolRefusedError(f"MLRsearch: loss even at {LOAD_MIN:.0f} packets/s")
    nothing, little = (float(rate) for rate in rates)
    details = {"half_percent_lost_per_s": little, "trials": float(trials.count)}
    return Reading(nothing, details)
