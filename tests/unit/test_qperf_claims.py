"""What the published text claims: held against the published figures, and against invented ones."""

from pathlib import Path

import pytest

from qperf_suite.claims import CLAIMS, Judgement, judge, steadiness
from qperf_suite.outcome import load
from qperf_suite.plans import PLANS
from qperf_suite.published import published_cases, published_ratio, published_value
from qperf_suite.statistics import Ratio
from qperf_suite.table import ratios
from qperf_suite.workloads import Case
from tests.fakes.suite_run import invented

GOOD = Ratio(2, 1.5, 3)
UDP_LATENCY = "same host: UDP latency is below bridge's at every size"
STABLE = "same host: mtr's round trip stays what it is with 2 VMs"


def exactly(ratio: float) -> Ratio:
    return Ratio(ratio, ratio, ratio)


def published() -> list[Judgement]:
    """Every claim, judged by the published figures."""
    compared: dict[str, dict[Case, Ratio]] = {}
    crowds = {}
    for case in published_cases():
        for other in ("bridge", "masquerade"):
            ratio = published_ratio(case, other)
            assert ratio is not None
            compared.setdefault(f"vhost-user/{other}", {})[case] = exactly(ratio)
        few = published_value(Case(case.placement, "mtr"), "vhost-user")
        many = published_value(case, "vhost-user")
        assert few is not None
        assert many is not None
        if case.test == "mtr" and case.guests > 2:
            crowds[case] = exactly(few / many)
    return judge(compared, crowds)


def test_the_published_plan_measures_all_that_is_claimed() -> None:
    assert published_cases() <= set(PLANS["published"]().cases)
    for claim in CLAIMS:
        assert any(claim.counts(case) for case in published_cases()), claim.words


def test_all_claims_hold_of_the_published_figures_but_these() -> None:
    failing = {found.claim.words: found.details for found in published() if not holds(found)}
    like = "across hosts: TCP latency is like {}'s above 4 MiB"
    less = "same host: TCP bandwidth is below {}'s from 128 B to 8 KiB"
    same = "across hosts: TCP bandwidth is like {}'s at 128 KiB"
    more = "across hosts: TCP bandwidth is below {}'s above 2 KiB, but for 128 KiB"
    trip = "same host: mtr's round trip is below {}'s with any number of VMs"
    assert failing == {
        # Up to 17 % apart, both ways, where it says similar.
        like.format("bridge"): "5 of 5 measured: 4 behind, 1 ahead",
        like.format("masquerade"): "5 of 5 measured: 4 behind, 1 ahead",
        # 256 B is not behind, nor 8 KiB against masquerade.
        less.format("bridge"): "7 of 7 measured: 6 behind, 1 ahead",
        less.format("masquerade"): "7 of 7 measured: 5 behind, 2 tie",
        # 6 and 7 % behind, where it says similar; as similar are 16 and 256 KiB, of the others.
        same.format("bridge"): "1 of 1 measured: 1 behind",
        same.format("masquerade"): "1 of 1 measured: 1 behind",
        more.format("bridge"): "15 of 15 measured: 13 behind, 2 tie",
        more.format("masquerade"): "15 of 15 measured: 12 behind, 3 tie",
        # They were measured in steps of 100 µs.
        trip.format("bridge"): "7 of 7 measured: 5 ahead, 2 tie",
        trip.format("masquerade"): "7 of 7 measured: 5 tie, 2 ahead",
    }


def holds(found: Judgement) -> bool:
    return found.answer == "holds here"


def test_claims_are_told_apart_by_their_words() -> None:
    assert len({claim.words for claim in CLAIMS}) == len(CLAIMS) == 2 * 19 + 2


@pytest.mark.parametrize(
    ("ratio", "answer", "details"),
    [
        (GOOD, "holds here", "11 of 11 measured: 11 ahead"),
        (Ratio(1.1, 0.9, 1.3), "undecided", "11 of 11 measured: 10 ahead, 1 undecided"),
        (Ratio(0.8, 0.7, 0.9), "does not hold", "11 of 11 measured: 10 ahead, 1 behind"),
        (Ratio(1, 0.98, 1.02), "does not hold", "11 of 11 measured: 10 ahead, 1 tie"),
        (None, "undecided", "10 of 11 measured: 10 ahead"),
    ],
)
def test_a_claim_is_judged_by_its_cases(ratio: Ratio | None, answer: str, details: str) -> None:
    row = {Case("same-host", "udp_lat", 2**power): GOOD for power in range(11)}
    if ratio is None:
        del row[Case("same-host", "udp_lat", 64)]
    else:
        row[Case("same-host", "udp_lat", 64)] = ratio
    found = one(judge({"vhost-user/bridge": row}, {}), UDP_LATENCY)
    assert (found.answer, found.details) == (answer, details)


@pytest.mark.parametrize(
    ("ratio", "answer"),
    [
        (Ratio(1, 0.98, 1.02), "holds here"),
        (Ratio(1, 0.9, 1.1), "undecided"),
        (Ratio(0.9, 0.8, 0.95), "does not hold"),
        (GOOD, "does not hold"),
    ],
)
def test_similar_is_a_tie(ratio: Ratio, answer: str) -> None:
    row = {Case("across-hosts", "tcp_bw", 128 * 1024): ratio}
    words = "across hosts: TCP bandwidth is like masquerade's at 128 KiB"
    assert one(judge({"vhost-user/masquerade": row}, {}), words).answer == answer


@pytest.mark.parametrize(
    ("ratio", "answer"),
    [
        (Ratio(1, 0.98, 1.02), "holds here"),
        (GOOD, "holds here"),
        (Ratio(1, 0.9, 1.1), "undecided"),
        (Ratio(0.9, 0.8, 0.95), "does not hold"),
    ],
)
def test_stable_is_what_is_not_behind_two_guests(ratio: Ratio, answer: str) -> None:
    crowds = {Case("same-host", "mtr", guests=count): ratio for count in range(4, 16, 2)}
    assert one(judge({}, crowds), STABLE).answer == answer


def test_a_few_sizes_do_not_make_a_claim_hold(tmp_path: Path) -> None:
    outcome = load(invented(tmp_path, PLANS["quick"]()))
    judged = judge(ratios(outcome), steadiness(outcome))
    found = one(judged, "same host: TCP latency is below bridge's at every size")
    assert (found.answer, found.details) == ("undecided", "3 of 28 measured: 3 ahead")
    assert one(judged, STABLE).answer == "not measured"
    assert one(judged, STABLE).details == "0 of 6 measured"


def test_crowds_are_compared_with_two_guests_round_by_round(tmp_path: Path) -> None:
    outcome = load(invented(tmp_path, PLANS["published"]().filtered("same-host/mtr")))
    found = steadiness(outcome)
    assert {case.guests for case in found} == {4, 6, 8, 10, 12, 14}
    assert all(ratio.low < 1 < ratio.high for ratio in found.values())


def one(judged: list[Judgement], words: str) -> Judgement:
    (found,) = (found for found in judged if found.claim.words == words)
    return found
