"""mesh/trace.py: which nodes are asked, what their answers mean, and lies among them."""

from itertools import count as numbers

import pytest

from mesh.inquiry import (
    MS,
    SESSION_WAIT_NS,
    Hop,
    PingAnswer,
    S,
    SendTrace,
    TraceAnswer,
    TraceEnd,
    Unsent,
    WayEnd,
)
from mesh.relay import HOPS
from mesh.trace import ANSWER_WAIT_NS, SILENT_MAX, TRIES, Trace

KEYS = [bytes([number]) * 32 for number in range(12)]
B, C, D = KEYS[1:4]


class Bench:
    """A trace to target, whose neighbour is B."""

    def __init__(self, target: bytes = D) -> None:
        ids = numbers(100)
        self.now = 5 * S
        self.trace = Trace(lambda: next(ids), self.now, target=target)

    def ask(self, hops: int) -> int:
        """The id of the ask that is due now, and which is sent."""
        self.trace.poll(self.now)
        (request,) = self.trace.requests()
        assert isinstance(request, SendTrace)
        assert request.hops_left == hops
        self.trace.sent(request.id, None, self.now)
        return request.id

    def answer(self, number: int, end: TraceEnd, key: bytes, by: bytes = B) -> None:
        self.now += MS
        self.trace.answered(TraceAnswer(number, end, key, by), self.now, self.now)

    def wait(self) -> None:
        timer = self.trace.next_timer()
        assert timer is not None
        assert timer > self.now
        self.now = timer

    def silence(self, hops: int) -> None:
        for _ in range(TRIES):
            self.ask(hops)
            before = self.now
            self.wait()
            assert self.now == before + ANSWER_WAIT_NS


def test_a_neighbour() -> None:
    bench = Bench(B)
    bench.answer(bench.ask(0), TraceEnd.REACHED, B)
    assert bench.trace.results() == [Hop(1, B, MS, proved=True), WayEnd("reached", B)]
    assert bench.trace.next_timer() is None


def test_nodes_in_a_row() -> None:
    bench = Bench()
    bench.answer(bench.ask(0), TraceEnd.HOPS, B)
    bench.answer(bench.ask(1), TraceEnd.HOPS, C)
    bench.answer(bench.ask(2), TraceEnd.REACHED, D)
    assert bench.trace.results() == [
        Hop(1, B, MS, proved=True),
        Hop(2, C, MS, proved=False),
        Hop(3, D, MS, proved=False),
        WayEnd("reached", D),
    ]


@pytest.mark.parametrize(
    ("end", "says"),
    [(TraceEnd.NO_SESSION, "no session"), (TraceEnd.UNKNOWN, "does not know")],
)
def test_where_it_ends(end: TraceEnd, says: str) -> None:
    bench = Bench()
    bench.answer(bench.ask(0), TraceEnd.HOPS, B)
    bench.answer(bench.ask(1), end, B)
    hop, way_end = bench.trace.results()
    assert hop == Hop(1, B, MS, proved=True), "once"
    assert isinstance(way_end, WayEnd)
    assert says in way_end.reason
    assert way_end.public_key == B
    assert bench.trace.next_timer() is None


def test_asked_again_when_lost() -> None:
    bench = Bench()
    first = bench.ask(0)
    bench.wait()
    bench.ask(0)
    bench.answer(first, TraceEnd.HOPS, B)  # late, and good all the same
    assert bench.trace.results() == [Hop(1, B, ANSWER_WAIT_NS + MS, proved=True)]


def test_a_silent_node_is_passed() -> None:
    bench = Bench()
    bench.silence(0)
    bench.trace.poll(bench.now)
    assert bench.trace.results() == [Hop(1, None, None, proved=False)]
    (request,) = bench.trace.requests()
    bench.trace.sent(request.id, None, bench.now)
    bench.answer(request.id, TraceEnd.REACHED, D)
    assert bench.trace.results() == [Hop(2, D, MS, proved=False), WayEnd("reached", D)]


def test_silence() -> None:
    bench = Bench()
    bench.answer(bench.ask(0), TraceEnd.HOPS, B)
    asks = 0
    while bench.trace.next_timer() is not None:
        bench.trace.poll(bench.now)
        for request in bench.trace.requests():
            bench.trace.sent(request.id, None, bench.now)
            asks += 1
        if bench.trace.next_timer() is not None:
            bench.wait()
    assert asks == TRIES * SILENT_MAX
    silent = [Hop(number, None, None, proved=False) for number in (2, 3)]
    assert bench.trace.results() == [Hop(1, B, MS, proved=True), *silent, WayEnd("no answer", B)]


def test_a_loop() -> None:
    bench = Bench()
    for hops in range(HOPS + 1):
        bench.answer(bench.ask(hops), TraceEnd.HOPS, KEYS[1 + hops % 2])
    *hops, end = bench.trace.results()
    assert len(hops) == HOPS + 1
    assert end == WayEnd("hop limit used up", B)
    assert bench.trace.next_timer() is None


def test_lies_are_no_answers() -> None:
    bench = Bench()
    number = bench.ask(0)
    bench.answer(number + 1, TraceEnd.HOPS, B)  # nobody asked
    bench.answer(number, TraceEnd.REACHED, C)  # somebody else than the target
    bench.trace.answered(PingAnswer(number, 16), bench.now, bench.now)
    assert bench.trace.results() == []
    bench.answer(number, TraceEnd.HOPS, C)  # another one than who passed it to us
    assert bench.trace.results() == [Hop(1, C, 3 * MS, proved=False)]
    bench.answer(number, TraceEnd.REACHED, D)  # of the ask before
    assert bench.trace.results() == []


def test_no_session_to_begin_with() -> None:
    bench = Bench()
    while bench.trace.next_timer() is not None:
        bench.trace.poll(bench.now)
        for request in bench.trace.requests():
            bench.trace.unsent(request.id, Unsent.NO_SESSION, bench.now)
        if bench.trace.next_timer() is not None:
            bench.wait()
    assert bench.trace.results() == [WayEnd("no session", None)]
    assert bench.now == 5 * S + SESSION_WAIT_NS


def test_a_session_in_time() -> None:
    bench = Bench()
    for _ in range(10):
        bench.trace.poll(bench.now)
        (request,) = bench.trace.requests()
        bench.trace.unsent(request.id, Unsent.NO_SESSION, bench.now)
        bench.wait()
    bench.answer(bench.ask(0), TraceEnd.HOPS, B)
    assert bench.trace.results() == [Hop(1, B, MS, proved=True)]


def test_the_kernel_refuses() -> None:
    bench = Bench()
    bench.trace.poll(bench.now)
    (request,) = bench.trace.requests()
    bench.trace.unsent(request.id, Unsent.FAILED, bench.now)
    assert bench.trace.results() == [WayEnd("the kernel refused it", None)]
    assert bench.trace.next_timer() is None
