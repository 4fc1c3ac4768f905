"""What a ring is to the protocol, and what the protocol asks of the device that runs it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from vhost.messages import RegionSpec


@dataclass(frozen=True)
class RingSpec:
    """All that a ring needs to start.  Addresses are the front-end's own."""

    index: int
    role: str  # "rx", "tx" as the guest sees it, or "control"
    num: int
    features: int
    desc: int
    avail: int
    used: int
    kick_fd: int  # -1: none, poll
    call_fd: int  # -1: none
    enabled: bool
    base: int = 0  # where a packed ring begins, as SET_VRING_BASE has it
    told: int = 0  # what the front-end last said or heard of that
    state: memoryview | None = None  # a packed ring's record that outlives us; the device's matter
    resume: bool = False  # go on where the record says
    log_gpa: int | None = None  # guest address of the used ring, when writes to it are logged


class Device(Protocol):
    """What the machine acts on.  Methods raise RefusedError when it cannot be done."""

    def memory_file(self, fd: int) -> tuple[int, int]:
        """Device and inode of a file that holds memory."""

    def replace_memory(self, regions: Sequence[RegionSpec]) -> list[int]:
        """List these instead of what was listed; what is in both stays mapped, and rings that do
        not lie in what goes do not notice.

        Returns the indices of rings that could not go on and are stopped now.
        """

    def start_ring(self, spec: RingSpec) -> None: ...

    def stop_ring(self, index: int) -> int:
        """Stop, wait until nobody uses it; returns where it would go on.

        That is the next index of the available ring; of a packed ring the next descriptor's slot,
        with the wrap counter as bit 15.
        """

    def forget_ring(self, index: int) -> None:
        """The front-end knows how far the stopped ring is, and will say where to begin."""

    def enable_ring(self, index: int, enabled: bool) -> None: ...

    def set_call(self, index: int, fd: int) -> None:
        """fd: -1 for none.  The former one is out of use on return."""

    def check_signal(self, fd: int) -> None:
        """Refuse what cannot be watched for kicks, or called with, without waiting."""

    def traffic_held(self) -> AbstractContextManager[None]:
        """For rings that stop and go on at once: who sends to them meanwhile waits if he can."""

    def set_log(self, fd: int, size_bytes: int = 0, offset: int = 0) -> None:
        """Mark pages in this log of so many bytes from now on; fd: -1 for none.

        Only rings whose features have LOG_ALL mark any.  They go on where they were.
        """

    def set_max_pairs(self, pairs: int) -> None: ...

    def announce(self, mac: bytes) -> None:
        """Tell everyone on the bridge that mac is behind this port."""

    def end_announcements(self) -> None: ...

    def send_state(self, fd: int, data: bytes) -> None:
        """Write data, which fits a pipe, and end the stream.  Takes fd over."""

    def receive_state(self, fd: int) -> None:
        """Begin to read what comes through fd until its end.  Takes fd over."""

    def received_state(self) -> bytes:
        """All that came; refused when it has not ended, or is longer than any state of ours."""

    def end_transfer(self) -> None: ...

    def close_fd(self, fd: int) -> None: ...


@dataclass
class Ring:
    """What the front-end has said about one ring."""

    num: int = 0
    addresses: tuple[int, int, int] | None = None  # descriptors, available, used
    log_gpa: int | None = None  # of the used ring, when it is to be logged
    base: int = 0  # where it goes on
    told: int = 0  # the same, as far as the front-end knows
    kick_fd: int | None = None  # None: not set; -1: set to none
    call_fd: int = -1
    error_fd: int = -1
    enabled: bool = False
    started: bool = False
    reason: str = ""  # why it stopped or could not start, when that was not asked for
