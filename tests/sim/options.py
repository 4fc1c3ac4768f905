"""Which faults a simulated network has, and its shape."""

from dataclasses import dataclass, fields
from random import Random

S = 1_000_000_000
MS = 1_000_000


@dataclass(frozen=True)
class Options:
    """Drawn per seed.  Probabilities are per datagram, intervals per node and in ns (0: never)."""

    nodes: int
    loss: float
    duplicate: float
    corrupt: float
    replay: float
    delay_max: int
    partition_every: int
    restart_every: int
    jump_every: int
    roam_every: int
    load_every: int  # cookies are asked for
    one_sided: bool  # only the first of each pair knows the other's address
    preshared: bool
    mixed: bool  # hosts have different ciphers, and choices of their own
    packet_every: int
    one_way: bool  # only the first host has packets to send
    shape: str  # who reaches whom by itself: "full", "star" (around the first), "row"

    @staticmethod
    def draw(rng: Random) -> "Options":
        def sometimes(*values: float) -> float:
            return rng.choice(values) if rng.random() < 0.5 else 0

        nodes = rng.choice([2, 2, 2, 3, 4])
        return Options(
            nodes=nodes,
            loss=sometimes(0.02, 0.1, 0.3),
            duplicate=sometimes(0.05, 0.5),
            corrupt=sometimes(0.05),
            replay=sometimes(0.05, 0.3),
            delay_max=rng.choice([1 * MS, 50 * MS, 400 * MS, 3 * S]),
            partition_every=int(sometimes(40 * S, 150 * S)),
            restart_every=int(sometimes(30 * S, 100 * S)),
            jump_every=int(sometimes(60 * S, 200 * S)),
            roam_every=int(sometimes(30 * S, 100 * S)),
            load_every=int(sometimes(30 * S, 100 * S)),
            one_sided=rng.random() < 0.25,
            preshared=rng.random() < 0.5,
            mixed=rng.random() < 0.3,
            packet_every=rng.choice([2 * S, 7 * S, 25 * S]),
            one_way=rng.random() < 0.3,
            shape=rng.choice(["full", "star", "row"]) if nodes > 2 else "full",
        )

    def __str__(self) -> str:
        return " ".join(f"{f.name}={getattr(self, f.name)}" for f in fields(self))
