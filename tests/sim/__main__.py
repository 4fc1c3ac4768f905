"""Many seeds at once: python -m tests.sim FIRST [HANDSHAKES [PROCESSES]]

Simulates seeds FIRST, FIRST + 1, … until so many handshakes (default 50,000) have come to keys that
both ends have proved to have; in so many processes (default: one per CPU).  A seed that fails says
how to reproduce it; the others go on.
"""

import gc
import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import count
from multiprocessing import Pool

from tests.sim.test_mesh_sim import simulate


def run(seed: int) -> tuple[int, int, str]:
    """(seed, handshakes, what the failure says; empty when all is well)."""
    said = io.StringIO()
    gc.disable()  # a network is small, and soon over
    try:
        with redirect_stdout(said):
            return seed, simulate(seed).ledger.completed, ""
    except Exception as error:
        return seed, 0, f"{said.getvalue()}{type(error).__name__}: {error}"
    finally:
        gc.collect()


def main(first: int, wanted: int = 50_000, processes: int = 0) -> int:
    began = time.monotonic()
    jobs = processes or len(os.sched_getaffinity(0))
    handshakes = seeds = failed = 0
    with Pool(jobs) as pool:
        for batch in batches(first, 16 * jobs):
            for seed, made, failure in pool.imap_unordered(run, batch):
                if failure:
                    print(f"seed {seed} failed:\n{failure}", flush=True)
                seeds += 1
                failed += bool(failure)
                handshakes += made
            if handshakes >= wanted:
                break
    took_s = time.monotonic() - began
    print(
        f"seeds {first} to {first + seeds - 1}: {handshakes} handshakes in {took_s:.0f} s, "
        f"{failed} seeds failed"
    )
    return 1 if failed else 0


def batches(first: int, size: int) -> Iterator[range]:
    for number in count():
        yield range(first + number * size, first + (number + 1) * size)


if __name__ == "__main__":
    sys.exit(main(*(int(argument) for argument in sys.argv[1:])))
