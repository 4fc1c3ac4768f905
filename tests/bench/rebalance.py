"""A load that moves: two workers share it again and again, and nothing is lost on the way."""

import time
from collections.abc import Sequence
from typing import TypeVar

from tests.bench.errors import BenchError
from tests.bench.generator import Shape
from tests.bench.plan import Place, Turn
from tests.bench.systems import Needs, Vsw
from tests.bench.wide import Wide
from tests.bench.wires import Frames, Wires

Guest = TypeVar("Guest")

FRAMES = Frames(1024)  # long enough that a worker has much to do
SHAPE = Shape(rx_num=16384, tx_num=16384)
PAUSE_NS = 200_000
SHARED = 0.25  # of a phase's frames: what the worker with less must carry
PATIENCE_S = 30.0
MOVES = 2


def rebalance(turn: Turn, cpus: tuple[int, ...]) -> None:
    """Four guests; two of them send, and one worker polls both.

    rebalance/seconds: until both workers carry the load; then two send that one worker polls as
    things are now, and so on.  A lost frame, or one out of order, is an error.
    """
    with (
        Place(4) as place,
        turn.system(place, Needs(cpus=cpus)) as system,
        Wires(place.sockets, SHAPE, turn.bench.load_cpu) as wires,
    ):
        assert isinstance(system, Vsw)
        for couple in couples(wires.nics, (0, 1)):
            wires.learn_between(*couple)
        took = []
        for _ in range(MOVES):
            senders = together(system)
            wide = Wide(wires, couples(wires.nics, senders), FRAMES)
            took.append(until_shared(turn, system, wide))
        turn.add("rebalance/seconds", "s", sum(took) / len(took))


def couples(nics: Sequence[Guest], senders: Sequence[int]) -> list[tuple[Guest, Guest]]:
    """Each sender with one of those that do not send."""
    others = [nic for i, nic in enumerate(nics) if i not in senders]
    return list(zip((nics[i] for i in senders), others, strict=True))


def together(system: Vsw) -> tuple[int, int]:
    """Two ports whose queues one worker polls."""
    of: dict[int, int] = {}
    for number, row in enumerate(system.ask("ports")):
        worker = row["workers"][0]
        if worker in of:
            return of[worker], number
        of[worker] = number
    raise BenchError("more workers than half of the ports")


def until_shared(turn: Turn, system: Vsw, wide: Wide) -> float:
    """Seconds until no worker carries nearly all of it."""
    begun = time.monotonic()
    before = packets(system)
    while time.monotonic() - begun < PATIENCE_S:
        for _ in range(20):
            wide.phase(SHAPE.tx_num, PAUSE_NS, turn.bench.load_cpu)
        now = packets(system)
        carried = [a - b for a, b in zip(now, before, strict=True)]
        if min(carried) >= SHARED * sum(carried):
            return time.monotonic() - begun
        before = now
    raise BenchError(f"after {PATIENCE_S:.0f} s one worker still carries nearly all of the load")


def packets(system: Vsw) -> list[int]:
    return [worker["packets"] for worker in system.ask("stats")["workers"]]
