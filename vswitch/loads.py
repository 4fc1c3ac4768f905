"""What queues and workers cost, as shares of a CPU since the last look."""

from collections.abc import Mapping, Sequence

from vswitch import core

Counts = Mapping[str, int]


class Meter:
    """Remembers the counters of one look, to compare them with those of the next."""

    def __init__(self) -> None:
        self._workers: list[Counts] = []
        self._queues: dict[object, Counts] = {}

    def loads(
        self, workers: Sequence[Counts], queues: Mapping[object, tuple[int, Counts]]
    ) -> tuple[dict[object, float], list[float]]:
        """(load of each queue, what each worker did beside them).

        workers: counters of each.  queues: the worker of each, and its counters."""
        before, self._workers = self._workers, list(workers)
        former, self._queues = self._queues, {q: counts for q, (_, counts) in queues.items()}
        if len(before) != len(workers):
            return {}, [0.0] * len(workers)
        spans = [
            max(1, now["cycles_clock"] - then["cycles_clock"])
            for then, now in zip(before, workers, strict=True)
        ]
        other = [
            (now["cycles_busy"] - then["cycles_busy"]) / span
            for then, now, span in zip(before, workers, spans, strict=True)
        ]
        loads: dict[object, float] = {}
        for queue, (worker, counts) in queues.items():
            cycles = counts["timed_cycles"] - former.get(queue, counts)["timed_cycles"]
            # Less than before: another queue, at the address of one that is gone.
            loads[queue] = max(0, cycles) * core.TIMED_EVERY / spans[worker]
            other[worker] = max(0.0, other[worker] - loads[queue])
        return loads, other
