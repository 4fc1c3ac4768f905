"""CPU time over what was moved, losses, and bounds: the arithmetic, and how tables show it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from qperf_suite.costs import Cost, costs, ns_per_byte, us_per_message
from qperf_suite.lossless import at_limit
from qperf_suite.outcome import Outcome, Sample, load
from qperf_suite.plans import PLANS, Part, Plan
from qperf_suite.table import ratios
from qperf_suite.tables import Table, tables
from qperf_suite.workloads import KIB, LOSSLESS, MIB, Case, Pace
from tests.fakes.suite_run import invented

PACE = Pace(qperf_s=2, large_s=6, iperf_s=4, iperf_omit_s=1)
CPU = {"machine_s": 4.0, "guests_s": 1.5, "switch_s": 0.5, "steal_s": 0.1}


def sample(
    case: Case,
    value: float,
    *,
    cpu: Mapping[str, float] = CPU,
    system: str = "vhost-user",
    number: int = 0,
    details: Mapping[str, float] | None = None,
) -> Sample:
    return Sample(number, system, case, value, details or {}, cpu, took_s=2.2)


def outcome(samples: Sequence[Sample]) -> Outcome:
    cases = list(dict.fromkeys(one.case for one in samples))
    plan = Plan("quick", [Part("pairs", cases)], systems=("vhost-user", "bridge"), pace=PACE)
    return Outcome(plan, list(samples), [], [])


def table(found: Outcome, start: str) -> Table:
    (one,) = (one for one in tables(found, ratios(found)) if one.title.startswith(start))
    return one


@pytest.mark.parametrize(
    ("case", "value", "per_byte", "per_message"),
    [
        # 2 s of CPU for 2 s of 100 MB/s, and 4 s of the machine.
        (Case("same-host", "tcp_bw", 1000), 100, Cost(10, 20), Cost(10, 20)),
        (Case("same-host", "udp_bw", 10), 100, Cost(10, 20), Cost(0.1, 0.2)),
        # For 6 s.
        (Case("same-host", "tcp_bw", 16 * MIB), 1000, Cost(1 / 3, 2 / 3), Cost(5592.4, 11184.8)),
        # One way: as many messages in 2 s as 50 µs fit.
        (Case("same-host", "tcp_lat", 1), 50, None, Cost(50, 100)),
        (Case("same-host", "udp_lat", KIB), 25, None, Cost(25, 50)),
        # 8 Gbit/s for 5 s, the omitted one as well.
        (Case("same-host", "iperf3", guests=4), 8, Cost(0.4, 0.8), None),
        (Case("same-host", "mtr"), 100, None, None),
        (Case("same-host", "pingpong", 64), 100, None, None),
        (Case("same-host", LOSSLESS, 64), 100, None, None),
    ],
)
def test_costs(case: Case, value: float, per_byte: Cost | None, per_message: Cost | None) -> None:
    for function, wanted in ((ns_per_byte, per_byte), (us_per_message, per_message)):
        found = function(sample(case, value), PACE)
        if wanted is None:
            assert found is None
        else:
            assert found is not None
            assert (found.used, found.machine) == pytest.approx(
                (wanted.used, wanted.machine), rel=1e-4
            )


def test_guests_elsewhere_have_no_costs() -> None:
    cpu = {**CPU, "guests_s": 0.0}
    assert ns_per_byte(sample(Case("same-host", "tcp_bw", 1), 1, cpu=cpu), PACE) is None
    assert ns_per_byte(sample(Case("same-host", "tcp_bw", 1), 1, cpu={}), PACE) is None
    found = outcome([sample(Case("same-host", "tcp_bw", 1), 1, cpu=cpu)])
    assert not [one for one in tables(found, {}) if one.title.startswith("CPU time")]
    assert costs(found) == {"vhost-user": {}, "bridge": {}}


def test_costs_are_medians_by_system() -> None:
    bandwidth, latency = (Case("across-hosts", f"tcp_{what}", KIB) for what in ("bw", "lat"))
    found = outcome(
        [
            *(sample(bandwidth, value, number=value) for value in (50, 100, 400)),
            sample(latency, 50, system="bridge"),
        ]
    )
    shown = table(found, "CPU time of guests and switches (of the machine), TCP")
    assert shown.head[:4] == [
        "message",
        "vhost-user bw, ns/B",
        "bridge bw, ns/B",
        "vhost-user bw, µs/message",
    ]
    assert shown.rows == [
        ["1 KiB", "10.0 (20.0)", "–", "10.2 (20.5)", "–", "–", "50.0 (100)"],
    ]
    assert costs(found)["vhost-user"]["across-hosts/tcp_bw/1024"] == {
        "ns_per_byte": 10,
        "machine_ns_per_byte": 20,
        "us_per_message": 10.24,
        "machine_us_per_message": 20.48,
    }
    assert costs(found)["bridge"] == {
        "across-hosts/tcp_lat/1024": {"us_per_message": 50, "machine_us_per_message": 100}
    }


def test_crowds_cost_seconds_per_gigabyte() -> None:
    found = outcome([sample(Case("same-host", "iperf3", guests=count), 8) for count in (2, 14)])
    shown = table(found, "CPU time of guests and switches (of the machine), iperf3")
    assert shown.head == ["guests", "vhost-user s/GB", "bridge s/GB"]
    assert shown.rows == [["2", "0.400 (0.800)", "–"], ["14", "0.400 (0.800)", "–"]]


def test_losses_are_medians_and_the_most_of_a_round() -> None:
    udp, mtr, link = (Case("same-host", "udp_bw", 1), *(Case("same-host", it) for it in TOOLS))
    samples = [
        sample(udp, 1, number=number, details={"loss_percent": loss})
        for number, loss in enumerate((0.0, 1.5, 20.0))
    ]
    samples += [sample(mtr, 1, details={"loss_percent": 0.0004}, system="bridge")]
    samples += [sample(link, 1, details={"retransmits": 0.0, "seconds": 4.0})]
    samples += [sample(link, 1, details={"retransmits": 12.0}, system="bridge")]
    samples += [sample(Case("same-host", "tcp_bw", 1), 1)]
    assert table(outcome(samples), "Losses and retransmissions").rows == [
        ["udp_bw 1 B, % lost", "1.50 (20.0)", "–"],
        ["iperf3, retransmissions", "0", "12.0"],
        ["other cases in which nothing was lost, by any: 1", "0", "0"],
    ]
    assert table(outcome(samples[3:4]), "Losses").rows == [
        ["cases in which nothing was lost, by any: 1", "0", "0"]
    ]
    assert not [one for one in tables(outcome(samples[-1:]), {}) if "Losses" in one.title]


TOOLS = ("mtr", "iperf3")


def test_a_rate_at_the_limit_of_the_search_is_a_lower_bound() -> None:
    assert at_limit(1e6)
    assert not at_limit(0.999e6)
    assert at_limit(0.995e6, 0.005)
    case = Case("same-host", LOSSLESS, 64)
    rates = {"vhost-user": (1e6, 1e6), "bridge": (5e5, 997_000.0)}
    found = outcome(
        [
            sample(case, rate, system=system, details={"half_percent_lost_per_s": little})
            for system, (rate, little) in rates.items()
        ]
    )
    assert table(found, "UDP datagrams per second").rows == [
        ["64 B", "≥ 1,000,000", "500,000", "≥ 1,000,000", "≥ 997,000"]
    ]
    assert table(found, "Ratios of vhost-user").rows[0][1] == "≥ 2.00 (1 round)"


@pytest.mark.parametrize(
    ("ours", "theirs", "text"), [(5e5, 1e6, "≤ 0.50"), (1e6, 1e6, "? 1.00"), (2e5, 1e5, "2.00")]
)
def test_a_ratio_is_bounded_by_what_is(ours: float, theirs: float, text: str) -> None:
    case = Case("same-host", LOSSLESS, 64)
    details = {"half_percent_lost_per_s": 2e6}
    pairs = (("vhost-user", ours), ("bridge", theirs))
    found = outcome([sample(case, rate, system=name, details=details) for name, rate in pairs])
    assert table(found, "Ratios").rows[0][1].startswith(text)


def test_the_published_plan_has_costs_of_all_but_round_trips_of_tools(tmp_path: Path) -> None:
    plan = PLANS["published"]().filtered("same-host")
    found = load(invented(tmp_path, plan))
    without = {case.test for case in plan.cases if case.name not in costs(found)["bridge"]}
    assert without == {"mtr", "pingpong"}
