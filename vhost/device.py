"""The rings and the memory of one port: what the protocol machine acts on.

A ring goes into service by being listed and published, and out of it by being unlisted, published
and waited for; only then is anything of it changed or freed.
"""

import asyncio
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from vhost import descriptors, transfer
from vhost.core import DirtyLog, Memory, Port, Queue
from vhost.errors import CoreError, LocalError, RefusedError, StateFileError
from vhost.messages import Feature, RegionSpec
from vhost.rings import RingSpec
from vhost.statefile import Place, RingKey, StateFile
from vhost.transfer import Receiver

log = logging.getLogger(__name__)

# Device state is less than a page, which every pipe holds (pipe(7), PIPE_BUF).
MAX_STATE_BYTES = 4096


class Switch(Protocol):
    """What a port needs of the switch."""

    def republish(self) -> None:
        """Publish what all ports list now; on return every worker is past what was before."""

    def sync(self) -> None:
        """On return every worker is past what was published or unlinked before the call."""


class CoreDevice:
    """Implements rings.Device with C rings.

    rxqs: the receive queues that are in service; the switch reads it in republish().
    """

    def __init__(
        self,
        port: Port,
        switch: Switch,
        rxqs: list[object],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._port = port
        self._switch = switch
        self._loop = loop
        self._announces = False
        self._receiver: Receiver | None = None
        self._rxqs = rxqs
        self._memory = Memory(port)
        self._log: DirtyLog | None = None
        self.queues: dict[int, Queue] = {}
        self._kicks_before: dict[int, int] = {}  # counted before the ring started
        self._nodes: tuple[int | None, ...] = ()
        self.states: StateFile | None = None
        self.notes: dict[int, str] = {}  # what became of rings that had a record

    # ---- rings.Device

    def memory_file(self, fd: int) -> tuple[int, int]:
        return descriptors.memory_file(fd)

    def replace_memory(self, regions: Sequence[RegionSpec]) -> list[int]:
        try:
            gone = self._memory.replace(regions)
        except CoreError as error:
            raise RefusedError(str(error)) from error
        self._nodes = ()
        # Rings hold on to where they were found; their buffers are looked up each time.
        moved = {i: q.spec for i, q in self.queues.items() if lies_in(q.spec, gone)}
        lost = []
        if moved:
            with self.traffic_held():
                bases = self._retire(list(moved))
                for index, spec in moved.items():
                    try:
                        self._add(replace(spec, base=bases[index]))
                    except RefusedError:
                        lost.append(index)
                self._list()
        else:
            self._switch.sync()
        self._memory.reap()
        return lost

    def start_ring(self, spec: RingSpec) -> None:
        if spec.index in self.queues:
            raise LocalError(f"ring {spec.index} runs already")
        self._add(spec)
        self._list()

    def stop_ring(self, index: int) -> int:
        return self._retire([index])[index]

    def forget_ring(self, index: int) -> None:
        if self.states is not None:
            self.states.forget(index)
        self.notes.pop(index, None)

    def enable_ring(self, index: int, enabled: bool) -> None:
        queue = self.queues[index]
        queue.spec = replace(queue.spec, enabled=enabled)
        queue.enable(enabled)
        if queue.spec.role == "rx":
            self._publish_tx()
            self._switch.sync()
            self._port.reap()

    def set_call(self, index: int, fd: int) -> None:
        queue = self.queues[index]
        queue.spec = replace(queue.spec, call_fd=fd)
        queue.set_call(fd)
        self._switch.sync()

    def check_signal(self, fd: int) -> None:
        descriptors.check_signal(fd)

    @contextmanager
    def traffic_held(self) -> Iterator[None]:
        self._port.hold(True)
        try:
            yield
        finally:
            self._port.hold(False)

    def set_log(self, fd: int, size_bytes: int = 0, offset: int = 0) -> None:
        try:
            new = DirtyLog(self._port, fd, size_bytes, offset) if fd >= 0 else None
        except CoreError as error:
            raise RefusedError(str(error)) from error
        former, self._log = self._log, new
        specs = {index: queue.spec for index, queue in self.queues.items()}
        with self.traffic_held():
            bases = self._retire(list(specs))
            if former is not None:
                former.close()
            for index, spec in specs.items():
                self._add(replace(spec, base=bases[index]))
            self._list()

    @property
    def log_beyond(self) -> int:
        """How often a page was written that the log has no bit for."""
        return 0 if self._log is None else self._log.beyond

    def set_max_pairs(self, pairs: int) -> None:
        self._port.set_max_pairs(pairs)

    def announce(self, mac: bytes) -> None:
        try:
            self._port.announce(mac)
        except CoreError as error:
            raise RefusedError(str(error)) from error
        if not self._announces:
            self._announces = True
            self._list()

    def end_announcements(self) -> None:
        if self._announces:
            self._announces = False
            self._list()

    def send_state(self, fd: int, data: bytes) -> None:
        transfer.send(fd, data)

    def receive_state(self, fd: int) -> None:
        self.end_transfer()
        self._receiver = Receiver(fd, MAX_STATE_BYTES, self._loop)

    def received_state(self) -> bytes:
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            raise LocalError("no device state is being received")
        try:
            return receiver.result()
        finally:
            receiver.close()

    def end_transfer(self) -> None:
        if self._receiver is not None:
            self._receiver.close()
            self._receiver = None

    def close_fd(self, fd: int) -> None:
        os.close(fd)

    def retire_port(self) -> None:
        """Nobody transmits to the port after this."""
        self._port.set_tx([])
        self._switch.sync()
        self._port.reap()
        self._memory.close()

    # ---- status

    @property
    def regions(self) -> list[tuple[RegionSpec, int | None]]:
        """What is mapped, and the NUMA node it lies on; None: unknown."""
        if not self._nodes:
            self._nodes = tuple(self._memory.nodes())
        return list(zip(self._memory.specs, self._nodes, strict=True))

    @property
    def numa_node(self) -> int | None:
        """The node that holds most of the guest's memory."""
        bytes_of: dict[int, int] = {}
        for spec, node in self.regions:
            if node is not None:
                bytes_of[node] = bytes_of.get(node, 0) + spec.size_bytes
        return max(bytes_of, key=bytes_of.__getitem__, default=None)

    def kicks(self, index: int) -> int | None:
        """Kicks since the ring started; None when they cannot be counted."""
        now = _event_count(self.queues[index].spec.kick_fd)
        return None if now is None else now - self._kicks_before.get(index, 0)

    # ---- in and out of service

    def _add(self, spec: RingSpec) -> None:
        try:
            queue = Queue(self._port, self._memory, self._with_state(spec), self._log)
        except CoreError as error:
            raise RefusedError(str(error)) from error
        if self.states is not None and queue.spec.state is not None:
            self.states.confirm(spec.index)
        self.queues[spec.index] = queue
        self._kicks_before[spec.index] = _event_count(spec.kick_fd) or 0

    def _with_state(self, spec: RingSpec) -> RingSpec:
        """With the ring's record, when it is of a kind that needs one.

        A record of the same ring is gone on from, also when the ring only restarts.
        """
        places = [self._memory.locate(user) for user in (spec.desc, spec.avail, spec.used)]
        if self.states is None or not spec.features & Feature.RING_PACKED or None in places:
            return replace(spec, state=None, resume=False)
        try:
            lost = self.states.claim(
                spec.index, RingKey(spec.num, *(Place(*place) for place in places if place))
            )
        except StateFileError as error:
            self.notes[spec.index] = f"packed ring {spec.index} cannot outlive the switch: {error}"
            return replace(spec, state=None, resume=False)
        if lost:
            self.notes[spec.index] = f"packed ring {spec.index} begins anew: {lost}"
            log.warning("%s", self.notes[spec.index])
        return replace(spec, state=self.states.record(spec.index), resume=lost is None)

    def _retire(self, indices: Sequence[int]) -> dict[int, int]:
        """Take rings out of service and free them; returns where each would go on."""
        retired = {index: self.queues.pop(index) for index in indices}
        if retired:
            self._list()
        bases = {}
        for index, queue in retired.items():
            bases[index] = queue.status().next_avail
            queue.close()
        return bases

    def _list(self) -> None:
        """List what is in service, and wait until nobody uses anything else."""
        rxqs = [q.rxq for _, q in sorted(self.queues.items()) if q.spec.role != "rx"]
        self._rxqs[:] = [*rxqs, self._port.announcer] if self._announces else rxqs
        self._publish_tx()
        self._switch.republish()
        self._port.reap()

    def _publish_tx(self) -> None:
        ready = [q for _, q in sorted(self.queues.items()) if q.spec.role == "rx"]
        self._port.set_tx([q for q in ready if q.spec.enabled])


def lies_in(spec: RingSpec, regions: Sequence[RegionSpec]) -> bool:
    """Whether a part of the ring does; each part lies in one region."""
    return any(
        region.user <= address < region.user + region.size_bytes
        for region in regions
        for address in (spec.desc, spec.avail, spec.used)
    )


def _event_count(fd: int) -> int | None:
    """What an event counter holds.  Nobody reads a kick's, so it counts all kicks (proc(5))."""
    if fd < 0:
        return None
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
        if line.startswith("eventfd-count:"):
            return int(line.split()[1], 16)
    return None
