"""A flood of initiations from strangers who know a node's public key.

The sources are random, the first MACs right.  How much of a paced flow of A to B comes through is
printed, not asserted: FLOOD_SECONDS=N makes it longer.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mesh.identity import Identity
from tests.c.build import build
from tests.fakes.daemons import until
from tests.fakes.meshplace import PORT, SEEDS, Place, goodput

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("iperf3") is None,
    reason="needs root for network namespaces, and iperf3",
)

PER_SECOND = 100_000
SECONDS = int(os.environ.get("FLOOD_SECONDS", "4"))
FLOW = "500M"
PYTHON_PER_SECOND = 200


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        made = Place(tmp_path, stack)
        until(made.connected, "the mesh")
        yield made
        assert [daemon.stop() for daemon in made.daemons] == [0, 0]


def test_a_flood_of_initiations_reaches_python_drop_by_drop(place: Place, tmp_path: Path) -> None:
    flood = build(tmp_path, "../netns/flood.c", packages=[], sanitize="undefined")
    calm = goodput(place, FLOW, 2)
    before, refused = place.drops(), place.refused()
    began = time.monotonic()
    strangers = subprocess.Popen(
        place.command(
            "x",
            str(flood),
            "192.0.3.2",
            str(PORT),
            Identity(SEEDS[1]).public_key.hex(),
            str(PER_SECOND),
            str(SECONDS + 2),
        ),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: place.drops().get("cookie", 0) > 0, "the flood")
        flooded = goodput(place, FLOW, SECONDS)
        # Who is no stranger proves its address, and is heard.
        place.daemons[0].close()
        place.daemons[0].start()
        place.daemons[0].wait("READY=1")
        until(place.connected, "a new session during the flood")
    finally:
        sent, _ = strangers.communicate(timeout=SECONDS + 30)
    took = time.monotonic() - began
    reached = place.refused() - refused
    after = place.drops()
    dropped = {
        reason: count - before.get(reason, 0)
        for reason, count in after.items()
        if count != before.get(reason, 0)
    }
    print(
        f"sent {int(sent)} initiations in {SECONDS + 2} s; to Python {reached}; {dropped}; "
        f"a flow paced at {FLOW}bit/s: {calm:.0f} Mbit/s before, {flooded:.0f} meanwhile"
    )
    assert reached <= PYTHON_PER_SECOND * took
    assert dropped["cookie"] > 0
    assert dropped["rate_limit"] > 0
    assert set(dropped) <= {"cookie", "rate_limit", "no_session", "unknown_index"}
