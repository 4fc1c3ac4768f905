"""Many seeds at once: python -m tests.sim FIRST [SECONDS]

Simulates seeds FIRST, FIRST + 1, … on all CPUs for so many seconds (default 60), and says how many
handshakes that were.  A seed that fails says how to reproduce it, and ends the run.
"""

import io
import os
import sys
import time
from contextlib import redirect_stdout
from multiprocessing import Pool

from tests.sim.test_mesh_sim import simulate


def run(seed: int) -> tuple[int, int, str]:
    """(seed, handshakes, what the failure says; empty when all is well)."""
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            return seed, simulate(seed).handshakes, ""
    except AssertionError as error:
        return seed, 0, f"{said.getvalue()}{error}"


def main(first: int, seconds: float) -> int:
    until = time.monotonic() + seconds
    jobs = len(os.sched_getaffinity(0))
    after, handshakes = first, 0
    with Pool(jobs) as pool:
        while time.monotonic() < until:
            batch = range(after, after + 16 * jobs)
            for seed, made, failure in pool.imap_unordered(run, batch):
                if failure:
                    print(f"seed {seed} failed:\n{failure}")
                    return 1
                handshakes += made
            after = batch.stop
    print(f"seeds {first} to {after - 1}: {handshakes} handshakes")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 60))
