"""Guests that take no part in a measurement, and may disturb it all the same."""

from collections.abc import Callable, Collection, Mapping

from qperf_suite.cpu import of_sessions
from qperf_suite.plans import Point
from qperf_suite.system import System

# Of one CPU.  Idle guests use less than 0.02; one whose clock or driver hangs uses all of it.
RESTLESS_SHARE = 0.5


class Bystanders:
    """Watches the guests of all systems but those that a point is measured with.

    read: CPU seconds of sessions, as of_sessions.
    """

    def __init__(
        self,
        systems: Mapping[str, System],
        point: Point,
        read: Callable[[Collection[int]], Mapping[int, float]] = of_sessions,
    ) -> None:
        system, case = systems[point.system], point.case
        busy = {system.seat(guest, case).guest.session for pair in case.pairs for guest in pair}
        self._names = {
            seat.guest.session: f"{name}'s guest {seat.address}"
            for name, other in systems.items()
            for seat in other.seats()
            if seat.guest.session is not None and seat.guest.session not in busy
        }
        self._read = read
        self._before = read(self._names)

    def restless(self, took_s: float) -> list[str]:
        """Who used the CPU meanwhile, took_s seconds after the beginning."""
        return [
            f"{self._names[session]} used {used - self._before.get(session, 0.0):.1f} s of CPU"
            for session, used in self._read(self._names).items()
            if used - self._before.get(session, 0.0) > RESTLESS_SHARE * took_s
        ]
