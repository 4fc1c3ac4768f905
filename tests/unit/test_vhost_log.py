"""The dirty log against the memory itself: every page that changed while we had it is marked.

The front-end's side is QEMU's order: SET_LOG_BASE, SET_FEATURES with LOG_ALL, SET_VRING_ADDR of
each ring with its log address.
"""

import mmap
import os
import random

import pytest

from tests.fakes.frontend import MERGEABLE, FrontEnd
from tests.fakes.ring import PackedRing, Ring
from tests.fakes.vhostbox import VhostBox, frame, pair
from tests.fakes.wire import Wire
from vhost import messages as m
from vhost.errors import RemoteError
from vhost.messages import Feature, ProtocolFeature, Request

PAGE = 4096

KINDS = {
    "split": MERGEABLE,
    "split, not mergeable": Feature.VERSION_1 | Feature.PROTOCOL_FEATURES,
    "packed": MERGEABLE | Feature.RING_PACKED,
    "in order": MERGEABLE | Feature.IN_ORDER,
    "packed, in order": MERGEABLE | Feature.RING_PACKED | Feature.IN_ORDER,
}


class Log:
    """A front-end's dirty log, in a file of its own."""

    def __init__(self, front: FrontEnd) -> None:
        self._front = front
        top = max(region.gpa + region.size for region in front.ram.regions)
        self.size = -(-(top // PAGE + 7) // 8 // PAGE) * PAGE + PAGE
        self.fd = os.memfd_create("log")
        os.ftruncate(self.fd, self.size)
        self.map = mmap.mmap(self.fd, self.size)

    def close(self) -> None:
        self.map.close()
        os.close(self.fd)

    def start(self, *, rings: bool = True) -> None:
        front = self._front
        payload = m.U64.pack(self.size) + m.U64.pack(0)
        answer = front.ask(Request.SET_LOG_BASE, payload, [self.fd])
        assert answer == m.U64.pack(0)
        self._features(front.features | Feature.LOG_ALL)
        for index, ring in rings_of(front):
            users = [front.ram.user(gpa) for gpa in (ring.desc, ring.used, ring.avail)]
            flags, gpa = (m.VRING_F_LOG, ring.used) if rings else (0, 0)
            front.send(Request.SET_VRING_ADDR, m.VRING_ADDR.pack(index, flags, *users, gpa))
        front.settle()

    def stop(self) -> None:
        """As after a cancelled migration."""
        front = self._front
        self._features(front.features & ~Feature.LOG_ALL)
        for index, ring in rings_of(front):
            front.send(Request.SET_VRING_ADDR, front.addresses(index, ring))
        front.settle()

    def _features(self, features: int) -> None:
        self._front.send(Request.SET_FEATURES, m.U64.pack(features))

    def take(self) -> set[int]:
        """Guest pages marked since the last time."""
        marked = {
            8 * at + bit
            for at, byte in enumerate(self.map[:])
            for bit in range(8)
            if byte >> bit & 1
        }
        self.map[:] = bytes(self.size)
        return marked


def rings_of(front: FrontEnd) -> list[tuple[int, Ring | PackedRing]]:
    return [(index, front.ring(index)) for index in (0, 1)]


def contents(front: FrontEnd) -> dict[int, bytes]:
    """Every page of the guest's memory."""
    return {
        (region.gpa + at) // PAGE: region.map[region.offset + at : region.offset + at + PAGE]
        for region in front.ram.regions
        for at in range(0, region.size, PAGE)
    }


def logging_pair(box: VhostBox, kind: str) -> tuple[FrontEnd, FrontEnd, Log]:
    """Two guests; the second one can log."""
    a, b = pair(box, MERGEABLE, int(KINDS[kind]))
    features = b.protocol_features | ProtocolFeature.LOG_SHMFD
    b.send(Request.SET_PROTOCOL_FEATURES, m.U64.pack(features))
    b.settle()
    return a, b, Log(b)


def exchange(box: VhostBox, a: FrontEnd, b: FrontEnd, rng: random.Random) -> None:
    """Some frames each way; what the guests write themselves is written before."""
    for _ in range(rng.randrange(1, 8)):
        a.transmit(frame(rng.randrange(60, 1500)))
    for _ in range(rng.randrange(1, 8)):
        b.transmit(frame(rng.randrange(60, 1500)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_page_that_changed_is_marked(kind: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed={seed}")
    rng = random.Random(seed)
    with VhostBox(2) as box:
        a, b, log = logging_pair(box, kind)
        log.start()
        written = 0
        for _ in range(20):
            b.post(8, 2048)
            exchange(box, a, b, rng)
            before = contents(b)
            box.settle()
            after = contents(b)
            changed = {page for page, data in after.items() if data != before[page]}
            marked = log.take()
            assert changed <= marked, f"not marked: {sorted(changed - marked)}"
            assert marked <= set(after), "pages that the guest does not have"
            written += len(changed)
            b.frames()
            b.ring(1).reap()
            a.ring(1).reap()
        assert written > 40
        log.close()


def test_rings_are_logged_only_when_asked() -> None:
    with VhostBox(2) as box:
        a, b, log = logging_pair(box, "split")
        log.start(rings=False)
        b.post(1, 256)
        a.transmit(frame(60))
        box.settle()
        marked = log.take()
        assert b.ring(0).used // PAGE not in marked
        ((gpa, _, _),) = b.ring(0).reap()[0][2]
        assert gpa // PAGE in marked, "the payload always"
        log.close()


def test_a_stopped_log_is_left_alone_and_traffic_goes_on() -> None:
    """A cancelled migration, then another."""
    with VhostBox(2) as box:
        a, b, log = logging_pair(box, "split")
        for _ in range(3):
            log.start()
            b.post(2)
            a.transmit(frame(100))
            box.settle()
            assert b.frames() == [frame(100)]
            assert log.take()
            log.stop()
            log.take()
            a.transmit(frame(200))
            box.settle()
            assert b.frames() == [frame(200)]
            assert not log.take()
        log.close()


# ---- messages

FOR_THE_LOG = m.LOG.pack(1 << 20, 4096)
ACKS = ProtocolFeature.LOG_SHMFD | ProtocolFeature.REPLY_ACK


@pytest.mark.parametrize(
    ("protocol", "wants_ack", "answer"),
    [
        (ProtocolFeature.LOG_SHMFD, False, m.U64.pack(0)),  # QEMU
        (ACKS, False, m.U64.pack(0)),  # QEMU
        (ACKS, True, m.U64.pack(0)),  # Cloud Hypervisor up to v51
        (ACKS | ProtocolFeature.DEVICE_STATE, True, FOR_THE_LOG),  # from v52 on
        (ACKS | ProtocolFeature.DEVICE_STATE, False, m.U64.pack(0)),
    ],
)
def test_who_gets_which_answer(protocol: int, wants_ack: bool, answer: bytes) -> None:
    wire = Wire()
    wire.negotiate(protocol=int(protocol))
    flags = m.VERSION | (m.FLAG_NEED_REPLY if wants_ack else 0)
    assert wire.send(Request.SET_LOG_BASE, FOR_THE_LOG, [9], flags) == answer
    assert wire.device.log == (9, 1 << 20, 4096)
    assert wire.device.closed == [9], "it is mapped"


@pytest.mark.parametrize(("fds", "payload"), [([], FOR_THE_LOG), ([9], b"short")])
def test_a_log_that_cannot_be_ends_the_connection(fds: list[int], payload: bytes) -> None:
    wire = Wire()
    wire.negotiate()
    with pytest.raises(RemoteError):
        wire.send(Request.SET_LOG_BASE, payload, fds)
    assert wire.device.closed == fds


def test_a_log_without_its_protocol_feature() -> None:
    wire = Wire()
    wire.negotiate(protocol=0)
    with pytest.raises(RemoteError, match="LOG_SHMFD was not negotiated"):
        wire.send(Request.SET_LOG_BASE, FOR_THE_LOG, [9])


def test_a_descriptor_to_tell_of_marks_is_closed() -> None:
    wire = Wire()
    wire.negotiate()
    assert wire.asked(Request.SET_LOG_FD, m.U64.pack(0), [9]) == 0
    assert wire.device.closed == [9]
