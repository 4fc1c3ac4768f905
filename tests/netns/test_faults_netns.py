"""Ways that lose, delay, reorder and double datagrams, while a TCP connection goes on.

The drawing is in tests/fakes/meshlab.py; tests/fakes/shaker.py is in the router.
"""

import pytest

from tests.fakes.daemons import until
from tests.fakes.meshlab import Lab, both_families, needs_root
from tests.fakes.shaker import Faults
from tests.fakes.talk import WAIT_S

pytestmark = needs_root

# TCP crawls when three datagrams of ten are lost.
LOSSY_BYTES = 1 << 16


@both_families
@pytest.mark.parametrize(
    ("faults", "size_bytes"),
    [
        (Faults(loss=0.3), LOSSY_BYTES),
        (Faults(delay_s=0.02), 1 << 20),
        (Faults(double=0.5), 1 << 20),
        (Faults(loss=0.1, double=0.1, delay_s=0.01), LOSSY_BYTES),
    ],
    ids=["loss", "reordering", "duplication", "all"],
)
def test_a_tcp_connection_survives(lab: Lab, faults: Faults, size_bytes: int) -> None:
    talk = lab.talk()
    talk.goes_on()
    shaker = lab.shake(faults)
    talk.goes_on(size_bytes)
    happened = (shaker.lost > 0, shaker.doubled > 0, shaker.overtaken > 0)
    assert happened == (faults.loss > 0, faults.double > 0, faults.delay_s > 0)
    replays = [host.drops().get("replay", 0) for host in lab.hosts]
    assert all((count > 0) == (faults.double > 0) for count in replays)
    shaker.faults = Faults()
    talk.goes_on()
    talk.finish()


@both_families
def test_keys_are_agreed_on_in_spite_of_loss(lab: Lab) -> None:
    """Both forget all, and begin anew by a way that loses three datagrams of ten."""
    talk = lab.talk()
    talk.goes_on()
    shaker = lab.shake(Faults(loss=0.3))
    for number in (0, 1):
        lab.restart(number)
    until(lambda: {lab.peer(n)["state"] for n in (0, 1)} == {"connected"}, "keys", WAIT_S)
    shaker.faults = Faults()
    talk.goes_on()
    talk.finish()
