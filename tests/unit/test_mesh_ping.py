"""mesh/ping.py: when probes go out, what becomes of each."""

from itertools import count as numbers

import pytest

from mesh.inquiry import (
    MS,
    SESSION_RETRY_NS,
    SESSION_WAIT_NS,
    PingAnswer,
    Ponged,
    S,
    SendPing,
    TraceAnswer,
    TraceEnd,
    Unsent,
)
from mesh.ping import ANSWER_WAIT_NS, Ping
from mesh.relay import Through

WAY = Through(3)


class Bench:
    """A ping, and time that passes from timer to timer."""

    def __init__(self, count: int | None = 3, interval_ns: int = S) -> None:
        ids = numbers(100)
        self.now = 5 * S
        self.ping = Ping(
            lambda: next(ids), self.now, count=count, interval_ns=interval_ns, ip_bytes=200
        )

    def ask(self) -> int:
        """The id of the one probe that is due now, and which is sent."""
        self.ping.poll(self.now)
        (request,) = self.ping.requests()
        assert isinstance(request, SendPing)
        assert request.ip_bytes == 200
        self.ping.sent(request.id, WAY, self.now)
        return request.id

    def answer(self, number: int, after_ns: int) -> None:
        self.now += after_ns
        self.ping.answered(PingAnswer(number, 200), self.now, self.now)

    def wait(self) -> None:
        timer = self.ping.next_timer()
        assert timer is not None
        assert timer >= self.now
        self.now = timer


def test_answers() -> None:
    bench = Bench()
    sent = []
    for number in (1, 2, 3):
        sent.append(bench.now)
        bench.answer(bench.ask(), number * MS)
        assert bench.ping.results() == [Ponged(number, 200, WAY, number * MS)]
        if number < 3:
            bench.wait()
    assert sent == [5 * S, 6 * S, 7 * S]
    assert bench.ping.next_timer() is None


def test_answers_overtake_each_other() -> None:
    bench = Bench(interval_ns=100 * MS)
    first = bench.ask()
    bench.wait()
    second = bench.ask()
    bench.answer(second, MS)
    bench.answer(first, MS)
    assert [(r.number, r.rtt_ns) for r in bench.ping.results()] == [(2, MS), (1, 102 * MS)]


def test_no_answer() -> None:
    bench = Bench(count=1)
    number = bench.ask()
    bench.wait()
    assert bench.now == 5 * S + ANSWER_WAIT_NS
    bench.ping.poll(bench.now)
    assert bench.ping.results() == [Ponged(1, 200, WAY, None, "no answer")]
    assert bench.ping.next_timer() is None
    bench.answer(number, MS)
    assert bench.ping.results() == [], "too late"


@pytest.mark.parametrize(
    "wrong", [PingAnswer(7, 200), TraceAnswer(100, TraceEnd.REACHED, bytes(32))]
)
def test_answers_to_others(wrong: PingAnswer | TraceAnswer) -> None:
    bench = Bench()
    number = bench.ask()
    bench.ping.answered(wrong, bench.now, bench.now)
    assert bench.ping.results() == []
    bench.answer(number, MS)
    assert len(bench.ping.results()) == 1


def test_an_answer_counts_once() -> None:
    bench = Bench()
    number = bench.ask()
    bench.answer(number, MS)
    bench.answer(number, MS)
    assert len(bench.ping.results()) == 1


def test_the_first_probe_waits_for_a_session() -> None:
    bench = Bench(count=2)
    bench.ping.poll(bench.now)
    for _ in range(20):
        (request,) = bench.ping.requests()
        bench.ping.unsent(request.id, Unsent.NO_SESSION, bench.now)
        bench.wait()
        bench.ping.poll(bench.now)
    assert bench.now == 5 * S + 20 * SESSION_RETRY_NS
    (request,) = bench.ping.requests()
    bench.ping.sent(request.id, WAY, bench.now)
    bench.answer(request.id, 7 * MS)
    assert bench.ping.results() == [Ponged(1, 200, WAY, 7 * MS)]
    began = bench.now
    bench.wait()
    assert bench.now == began - 7 * MS + S, "the next one a second after"


def test_no_session() -> None:
    bench = Bench(count=2)
    lost = []
    while bench.ping.next_timer() is not None:
        bench.ping.poll(bench.now)
        for request in bench.ping.requests():
            bench.ping.unsent(request.id, Unsent.NO_SESSION, bench.now)
        lost += bench.ping.results()
        if bench.ping.next_timer() is not None:
            bench.wait()
    assert lost == [Ponged(number, 200, None, None, "no session") for number in (1, 2)]
    assert bench.now == 5 * S + 2 * SESSION_WAIT_NS + S


@pytest.mark.parametrize("why", [Unsent.TOO_LONG, Unsent.FAILED])
def test_what_cannot_be_sent_is_lost(why: Unsent) -> None:
    bench = Bench(count=1)
    bench.ping.poll(bench.now)
    (request,) = bench.ping.requests()
    bench.ping.unsent(request.id, why, bench.now)
    assert bench.ping.results() == [Ponged(1, 200, None, None, why.value)]
    assert bench.ping.next_timer() is None


def test_without_end() -> None:
    bench = Bench(count=None, interval_ns=100 * MS)
    for number in range(1, 1000):
        bench.answer(bench.ask(), MS)
        assert [r.number for r in bench.ping.results()] == [number]
        bench.wait()
    assert bench.now == 5 * S + 999 * 100 * MS


def test_a_late_owner_does_not_make_it_hurry() -> None:
    """After a pause, one probe, not all that were missed."""
    bench = Bench(count=None, interval_ns=100 * MS)
    bench.answer(bench.ask(), MS)
    bench.now += 10 * S
    bench.answer(bench.ask(), MS)
    bench.ping.poll(bench.now)
    assert bench.ping.requests() == []
