"""Sessions that end and begin while a TCP connection goes on: restarts, new keys, clocks that jump.

The drawing is in tests/fakes/meshlab.py.
"""

import signal
from pathlib import Path

import pytest

from tests.fakes.daemons import until
from tests.fakes.meshlab import Lab, both_families, laboratory, needs_root

pytestmark = needs_root

A, B = 0, 1
DAY_S = 86_400
REKEY_S = 141  # a key is replaced when it is so old, whoever asked for it
REJECT_S = 181  # then it is not used any more


@pytest.mark.parametrize(
    ("lab", "number", "how"),
    [
        ("4", A, signal.SIGTERM),
        ("4", B, signal.SIGKILL),
        ("6", A, signal.SIGKILL),
        ("6", B, signal.SIGTERM),
    ],
    indirect=["lab"],
)
def test_a_restart(lab: Lab, number: int, how: signal.Signals) -> None:
    talk = lab.talk()
    talk.goes_on()
    lab.restart(number, how)
    talk.goes_on()
    talk.finish()


def test_both_restart(lab: Lab) -> None:
    talk = lab.talk()
    talk.goes_on()
    for number in (A, B):
        lab.hosts[number].daemon.process.kill()
    for number in (A, B):
        lab.restart(number, signal.SIGKILL)
    talk.goes_on()
    talk.finish()


def is_fresh(lab: Lab) -> bool:
    """Whether the keys are of now, as both sides see it."""
    ages = [lab.peer(number)["last_handshake_s"] for number in (A, B)]
    return all(age is not None and age < 100 for age in ages)


@both_families
def test_new_keys_under_load(lab: Lab) -> None:
    """Asked for by A, by B, and by both at once; nothing is lost for it."""
    talk = lab.talk(pace_s=0.001)
    talk.goes_on()
    before = [host.drops() for host in lab.hosts]
    for jumps in ((REKEY_S, 0), (0, REKEY_S), (REKEY_S, REKEY_S)) * 2:
        for clock, jump_s in zip(lab.clocks, jumps, strict=True):
            clock.jump(monotonic_s=jump_s)
        until(lambda: is_fresh(lab), "new keys")
        talk.goes_on(4 << 20)
    assert [host.drops() for host in lab.hosts] == before
    talk.finish()


@pytest.mark.parametrize("jumps", [(REJECT_S, 0), (REJECT_S, REJECT_S)])
def test_keys_that_are_too_old(lab: Lab, jumps: tuple[int, int]) -> None:
    """As after a machine was stopped for minutes."""
    talk = lab.talk()
    talk.goes_on()
    for clock, jump_s in zip(lab.clocks, jumps, strict=True):
        clock.jump(monotonic_s=jump_s)
    until(lambda: is_fresh(lab), "new keys")
    talk.goes_on()
    talk.finish()


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
def test_the_wall_clock_jumps_under_way(lab: Lab, jump_s: int) -> None:
    talk = lab.talk()
    talk.goes_on()
    lab.clocks[A].jump(wall_s=jump_s)
    talk.goes_on()
    lab.clocks[A].jump(monotonic_s=REKEY_S)
    until(lambda: is_fresh(lab), "new keys")
    talk.goes_on()
    talk.finish()


@pytest.mark.parametrize("hidden", [True, False])
def test_the_wall_clock_jumps_over_restarts(hidden: bool, tmp_path: Path) -> None:
    """Back: what A begins looks like a replay to B, which then begins itself, when its last keys
    with A are 15 s old.  hidden: B knows only from where that came."""
    with laboratory(tmp_path, "6", hidden=hidden) as lab:
        talk = lab.talk()
        talk.goes_on()
        for jump_s in (DAY_S, -2 * DAY_S):
            lab.clocks[A].jump(wall_s=jump_s)
            lab.restart(A)
            lab.clocks[B].jump(monotonic_s=15)
            talk.goes_on()
        talk.finish()
