"""The local indexes in use: what peers write into records and answers to us."""

from __future__ import annotations

from typing import Generic, TypeVar

from mesh.errors import LocalError
from mesh.identity import Rng

_SLOT = 0xFFFF  # the data plane finds a session by the low 16 bits of its index
_TRIES = 64

Owner = TypeVar("Owner")


class Indexes(Generic[Owner]):
    """Random numbers of 32 bits whose low 16 bits are distinct; each belongs to an owner."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._slots: dict[int, tuple[int, Owner]] = {}

    def free(self) -> int:
        """An index that nobody has; claim() takes it."""
        for _ in range(_TRIES):
            index = int.from_bytes(self._rng.randbytes(4), "little")
            if index & _SLOT not in self._slots:
                return index
        # At least half of the slots are free (config.MAX_PEERS): the generator is broken.
        raise LocalError("no free session index among 64 random ones")

    def claim(self, index: int, owner: Owner) -> None:
        if index & _SLOT in self._slots:
            raise LocalError(f"session index {index:#x} is taken")
        self._slots[index & _SLOT] = (index, owner)

    def release(self, index: int) -> None:
        if self.owner(index) is None:
            raise LocalError(f"session index {index:#x} is nobody's")
        del self._slots[index & _SLOT]

    def owner(self, index: int) -> Owner | None:
        found = self._slots.get(index & _SLOT)
        return found[1] if found is not None and found[0] == index else None
