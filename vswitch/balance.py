"""Which worker polls which queue: by measured load, NUMA node and the user's wish.

Sans-IO.  A queue that comes goes to the worker with the least to do.  A queue that is there stays,
until moving it, or exchanging it for another, is clearly worth it for long enough; moves are rare,
because each makes a guest wait for two breaths, and because what the last one brought has to be
measured first.

Loads are shares of a CPU.  Queues are any hashable objects.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

BUSY = 0.6  # of a CPU: below that, a worker needs no help
GAIN_MIN = 0.1  # of a CPU: what a move must take from the busier of two workers
MOVABLE_MIN = 0.02  # of a CPU: moving less than that is not worth a thought
CONVINCED = 3  # measurements in a row that must find the same worker in need of help
PAUSE_NS = 3_000_000_000  # from one move to the next
STAY_NS = 10_000_000_000  # from one move of a queue to its next
SMOOTHING = 0.5  # weight of the newest measurement
NEW_LOAD = 0.05  # of a CPU: what a queue counts for until it was measured


@dataclass(frozen=True)
class Wish:
    """allowed: workers that may poll the queue.  node: of the guest's memory, when it is known."""

    allowed: tuple[int, ...]
    node: int | None = None


@dataclass
class _Queue:
    wish: Wish
    worker: int
    load: float = NEW_LOAD
    moved_ns: int | None = None


@dataclass(frozen=True)
class _Step:
    """queue goes to worker to, and the queue in return, if any, comes for it."""

    queue: _Queue
    to: int
    exchange: _Queue | None
    gain: float


@dataclass
class Balancer:
    """nodes: the NUMA node of each worker's CPU.  now: monotonic ns, never decreasing."""

    nodes: Sequence[int | None]
    _queues: dict[Hashable, _Queue] = field(default_factory=dict)
    _other: list[float] = field(default_factory=list)
    _needy: int | None = None
    _needy_for: int = 0
    _quiet_until_ns: int = 0

    def place(self, wishes: Mapping[Hashable, Wish]) -> dict[Hashable, int]:
        """The worker of each queue, in the order of wishes; those that are not in it are forgotten.

        A queue whose worker is no longer allowed gets another."""
        before, self._queues = self._queues, {}
        for queue, wish in wishes.items():
            known = before.get(queue)
            if known is not None and known.worker in wish.allowed:
                known.wish = wish
                self._queues[queue] = known
        for queue, wish in wishes.items():
            if queue not in self._queues:
                known = before.get(queue)
                load = known.load if known is not None else NEW_LOAD
                self._queues[queue] = _Queue(wish, self._least_loaded(wish), load)
        return {queue: self._queues[queue].worker for queue in wishes}

    def measure(
        self, loads: Mapping[Hashable, float], other: Sequence[float], now: int
    ) -> dict[Hashable, int]:
        """Take a measurement.  Returns the queues that shall move, and where to; mostly none.

        loads: of each queue since the last time.  other: what each worker spent on what cannot
        move.  The moves count as made."""
        self._other = list(other)
        for queue, load in loads.items():
            known = self._queues.get(queue)
            if known is not None:
                known.load += SMOOTHING * (load - known.load)
        if now < self._quiet_until_ns:
            return {}
        step = self._best_step(now)
        if step is None:
            self._needy_for = 0
            return {}
        source = step.queue.worker
        self._needy_for = self._needy_for + 1 if source == self._needy else 1
        self._needy = source
        if self._needy_for < CONVINCED:
            return {}
        self._needy_for = 0
        self._quiet_until_ns = now + PAUSE_NS
        return self._make(step, now)

    def _make(self, step: _Step, now: int) -> dict[Hashable, int]:
        moved = [(step.queue, step.to)]
        if step.exchange is not None:
            moved.append((step.exchange, step.queue.worker))
        for queue, worker in moved:
            queue.worker, queue.moved_ns = worker, now
        return {
            name: queue.worker
            for name, queue in self._queues.items()
            if any(queue is one for one, _ in moved)
        }

    def _least_loaded(self, wish: Wish) -> int:
        loads = self._worker_loads()
        counts = [sum(q.worker == i for q in self._queues.values()) for i in range(len(loads))]
        return min(self._near(wish), key=lambda i: (round(loads[i], 1), counts[i], i))

    def _near(self, wish: Wish) -> tuple[int, ...]:
        """The allowed workers on the node of the guest's memory, or all when there is none."""
        near = tuple(i for i in wish.allowed if self.nodes[i] == wish.node)
        return near if near and wish.node is not None else wish.allowed

    def _worker_loads(self) -> list[float]:
        measured = len(self._other) == len(self.nodes)
        loads = list(self._other) if measured else [0.0] * len(self.nodes)
        for queue in self._queues.values():
            loads[queue.worker] += queue.load
        return loads

    def _may_move(self, queue: _Queue, to: int, now: int) -> bool:
        rested = queue.moved_ns is None or now - queue.moved_ns >= STAY_NS
        return rested and to in self._near(queue.wish)

    def _best_step(self, now: int) -> _Step | None:
        """What relieves the busiest worker most; None when nothing does so clearly."""
        loads = self._worker_loads()
        source = max(range(len(loads)), key=loads.__getitem__)
        if loads[source] < BUSY:
            return None
        of: list[list[_Queue]] = [[] for _ in loads]
        for queue in self._queues.values():
            of[queue.worker].append(queue)
        best: _Step | None = None
        for to in range(len(loads)):
            if loads[source] - loads[to] < GAIN_MIN:
                continue
            leaving = [
                q for q in of[source] if q.load >= MOVABLE_MIN and self._may_move(q, to, now)
            ]
            coming = [q for q in of[to] if q.load >= MOVABLE_MIN and self._may_move(q, source, now)]
            for queue, exchange in product(leaving, [None, *coming]):
                less = queue.load - (exchange.load if exchange is not None else 0.0)
                gain = loads[source] - max(loads[source] - less, loads[to] + less)
                # An exchange costs two moves, so it has to bring more.
                needed = GAIN_MIN if exchange is None else 2 * GAIN_MIN
                if gain >= needed and (best is None or gain > best.gain + 1e-9):
                    best = _Step(queue, to, exchange, gain)
        return best
