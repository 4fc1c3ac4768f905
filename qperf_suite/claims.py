"""What the text of the published comparison claims, and whether it is so here.

In our words.  How much better "much better" is, is not judged.  Similar is a tie: what is within
3 % of each other.  Stable is what is not behind what it was with 2 VMs.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qperf_suite.outcome import Outcome
from qperf_suite.published import OURS, published_cases
from qperf_suite.statistics import Ratio
from qperf_suite.table import paired
from qperf_suite.workloads import KIB, MIB, PLACEMENTS, Case

OTHERS = ("bridge", "masquerade")
# Instead of another system: ourselves, while nobody but 2 VMs talks.
ALONE = "2 VMs"
AHEAD, BEHIND, TIE = ("ahead",), ("behind",), ("tie",)
NOT_BEHIND = ("ahead", "tie")
DECIDED = ("ahead", "behind", "tie")
Rows = Mapping[str, Mapping[Case, Ratio]]


@dataclass(frozen=True)
class Claim:
    """What the text says of vhost-user. verdicts: one of them in every case that counts."""

    words: str
    other: str
    verdicts: tuple[str, ...]
    counts: Callable[[Case], bool]


@dataclass(frozen=True)
class Judgement:
    """How a claim fares here. answer: holds here, does not hold, undecided, not measured."""

    claim: Claim
    answer: str
    details: str


def judge(compared: Rows, crowds: Mapping[Case, Ratio]) -> list[Judgement]:
    """Every claim. compared: "vhost-user/bridge" → case → ratio; crowds: what steadiness() gives.

    A claim holds only when all cases that the text speaks of were measured.
    """
    rows = {**compared, f"{OURS}/{ALONE}": crowds}
    return [_judgement(claim, rows.get(f"{OURS}/{claim.other}", {})) for claim in CLAIMS]


def steadiness(outcome: Outcome) -> dict[Case, Ratio]:
    """vhost-user with more VMs that talk against itself with 2, round by round."""
    found = {}
    for case in outcome.plan.cases:
        if case.size_bytes is not None or case.guests == 2 or OURS not in outcome.plan.systems:
            continue
        few = outcome.values(OURS, Case(case.placement, case.test))
        ratio = paired(case, outcome.values(OURS, case), few)
        if ratio is not None:
            found[case] = ratio
    return found


def _judgement(claim: Claim, row: Mapping[Case, Ratio]) -> Judgement:
    verdicts = Counter(ratio.verdict for case, ratio in row.items() if claim.counts(case))
    total = len({case for case in {*published_cases(), *row} if claim.counts(case)})
    listed = [f"{count} {verdict}" for verdict, count in verdicts.most_common()]
    details = f"{verdicts.total()} of {total} measured"
    if listed:
        details += f": {', '.join(listed)}"
    return Judgement(claim, _answer(claim, verdicts, total), details)


def _answer(claim: Claim, verdicts: Counter[str], total: int) -> str:
    if verdicts.total() == 0:
        return "not measured"
    if any(verdicts[verdict] for verdict in DECIDED if verdict not in claim.verdicts):
        return "does not hold"
    good = sum(verdicts[verdict] for verdict in claim.verdicts)
    return "holds here" if good == total else "undecided"


def _both(
    where: str, words: str, verdicts: tuple[str, ...], counts: Callable[[Case], bool]
) -> list[Claim]:
    """A claim against each of the others; words: with {} for its name."""
    return [
        Claim(
            f"{where.replace('-', ' ')}: {words.format(other)}",
            other,
            verdicts,
            lambda case: case.placement == where and counts(case),
        )
        for other in OTHERS
    ]


def _stable(where: str) -> Claim:
    words = f"{where.replace('-', ' ')}: mtr's round trip stays what it is with {ALONE}"
    counts = _crowd("mtr", 4)
    return Claim(words, ALONE, NOT_BEHIND, lambda case: case.placement == where and counts(case))


def _sizes(test: str, first: int = 1, last: int = 1 << 40, but: int = 0) -> Callable[[Case], bool]:
    return lambda case: (
        case.test == test and first <= (case.size_bytes or 0) <= last and case.size_bytes != but
    )


def _crowd(test: str, first: int = 2, last: int = 99) -> Callable[[Case], bool]:
    return lambda case: case.test == test and first <= case.guests <= last


SAME, ACROSS = PLACEMENTS
CLAIMS = (
    *_both(SAME, "TCP latency is below {}'s at every size", AHEAD, _sizes("tcp_lat")),
    *_both(SAME, "UDP latency is below {}'s at every size", AHEAD, _sizes("udp_lat")),
    *_both(ACROSS, "TCP latency is below {}'s to 256 KiB", AHEAD, _sizes("tcp_lat", 1, 256 * KIB)),
    *_both(ACROSS, "TCP latency is like {}'s above 4 MiB", TIE, _sizes("tcp_lat", 8 * MIB)),
    *_both(ACROSS, "UDP latency is below {}'s at every size", AHEAD, _sizes("udp_lat")),
    *_both(SAME, "TCP bandwidth is above {}'s below 16 B", AHEAD, _sizes("tcp_bw", 1, 8)),
    *_both(
        SAME,
        "TCP bandwidth is below {}'s from 128 B to 8 KiB",
        BEHIND,
        _sizes("tcp_bw", 128, 8 * KIB),
    ),
    *_both(SAME, "TCP bandwidth is above {}'s above 16 KiB", AHEAD, _sizes("tcp_bw", 32 * KIB)),
    *_both(SAME, "UDP bandwidth is above {}'s at every size", AHEAD, _sizes("udp_bw")),
    *_both(ACROSS, "TCP bandwidth is above {}'s below 16 B", AHEAD, _sizes("tcp_bw", 1, 8)),
    *_both(
        ACROSS, "TCP bandwidth is above {}'s from 16 B to 512 B", AHEAD, _sizes("tcp_bw", 16, 512)
    ),
    *_both(
        ACROSS,
        "TCP bandwidth is below {}'s above 2 KiB, but for 128 KiB",
        BEHIND,
        _sizes("tcp_bw", 4 * KIB, but=128 * KIB),
    ),
    *_both(
        ACROSS,
        "TCP bandwidth is like {}'s at 128 KiB",
        TIE,
        _sizes("tcp_bw", 128 * KIB, 128 * KIB),
    ),
    *_both(ACROSS, "UDP bandwidth is above {}'s at every size", AHEAD, _sizes("udp_bw")),
    *_both(SAME, "mtr's round trip is below {}'s with any number of VMs", AHEAD, _crowd("mtr")),
    *_both(ACROSS, "mtr's round trip is below {}'s with any number of VMs", AHEAD, _crowd("mtr")),
    *map(_stable, PLACEMENTS),
    *_both(SAME, "the link carries more than {}'s with 2 VMs", AHEAD, _crowd("iperf3", 2, 2)),
    *_both(
        SAME,
        "the link, and so each VM, carries less than {}'s from 8 VMs on",
        BEHIND,
        _crowd("iperf3", 8),
    ),
    *_both(ACROSS, "the link carries less than {}'s from 8 VMs on", BEHIND, _crowd("iperf3", 8)),
)
