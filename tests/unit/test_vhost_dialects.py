"""Cloud Hypervisor, which cannot run here: its messages in its order, with frames in between."""

import os

import pytest

from tests.fakes.cloud_hypervisor import MAIN, V42, V52, CloudHypervisor, Version, connect
from tests.fakes.frontend import FrontEnd
from tests.fakes.vhostbox import A, B, VhostBox, frame, mac
from vhost import messages as m
from vhost.messages import Feature, ProtocolFeature, Request

VERSIONS = pytest.mark.parametrize("version", [V42, V52, MAIN], ids=lambda v: v.name)
FAR = 0x9000_0000


def vm(box: VhostBox, number: int, version: Version) -> CloudHypervisor:
    box.ports[number].start()
    front = connect(box.pump, box.ports[number].config.path, version)
    box.fronts.append(front)
    return front


def pair(box: VhostBox, version: Version) -> tuple[CloudHypervisor, FrontEnd]:
    """A VM of Cloud Hypervisor's as B, and an ordinary one as A that knows where it is."""
    b = vm(box, 1, version)
    a = box.front(0)
    a.boot()
    a.post(1)
    b.transmit(mac(A) + mac(B) + b"\x88\xb5" + bytes(46))
    box.settle()
    assert len(a.frames()) == 1
    b.rings[1].reap()
    return b, a


def arrives(box: VhostBox, a: FrontEnd, b: FrontEnd, seed: int) -> None:
    b.post(1)
    a.transmit(frame(64, seed))
    box.settle()
    assert b.frames() == [frame(64, seed)]


@VERSIONS
def test_it_comes_up(version: Version) -> None:
    with VhostBox() as box:
        b, a = pair(box, version)
        arrives(box, a, b, 1)
        status = box.ports[1].status()
        names = status["protocol_features"]
        assert isinstance(names, list)
        assert "INFLIGHT_SHMFD" not in names, "it asks for no such thing then"
        assert ("DEVICE_STATE" in names) == (version is not V42)
        assert ("CONFIG" in names) == (version is MAIN)


@VERSIONS
def test_pause_and_resume(version: Version) -> None:
    with VhostBox() as box:
        b, a = pair(box, version)
        b.post(1)
        b.enable(False)
        a.transmit(frame(64))
        box.settle()
        assert b.frames() == []
        b.enable(True)
        a.transmit(frame(65))
        box.settle()
        assert b.frames() == [frame(65)]


@VERSIONS
def test_a_reset_by_the_driver_and_another_start(version: Version) -> None:
    with VhostBox() as box:
        b, a = pair(box, version)
        b.reset()
        for ring in b.rings.values():
            ring.close()
        b.rings = {}
        b.ring_size = 128
        b.set_up()
        arrives(box, a, b, 1)


@VERSIONS
def test_a_reconnect_with_the_available_index_as_base_loses_no_buffer(version: Version) -> None:
    with VhostBox() as box:
        b, a = pair(box, version)
        b.post(10)
        a.transmit(frame(64))
        box.settle()
        assert b.sock is not None
        b.sock.close()
        for _ in range(5):
            box.pump()
        b.connect(box.ports[1].config.path)
        b.meet_again()
        b.set_up()
        assert b.rings[0].avail_idx == 10
        for number in range(9):
            a.transmit(frame(65 + number))
        box.settle()
        assert b.frames() == [frame(64 + number) for number in range(10)]


@VERSIONS
def test_memory_is_added_and_used(version: Version) -> None:
    with VhostBox() as box:
        b, a = pair(box, version)
        fd = os.memfd_create("dimm")
        os.ftruncate(fd, 1 << 20)
        b.hotplug(FAR, 1 << 20, fd)
        b.rings[0].add([(FAR + 4096, 2048, True)])
        a.transmit(frame(64))
        box.settle()
        assert os.pread(fd, 64, 4096 + 12) == frame(64)
        os.close(fd)


@VERSIONS
def test_a_migration_with_a_log_for_each_round(version: Version) -> None:
    with VhostBox() as box:
        b, a = pair(box, version)
        fds = [b.start_log()]
        for number in range(3):
            fds.append(b.next_log())
            before = os.pread(fds[-2], 1 << 20, 0)
            arrives(box, a, b, number)
            assert os.pread(fds[-2], 1 << 20, 0) == before, "the former log is not touched"
            log = os.pread(fds[-1], 1 << 20, 0)
            page = b.rings[0].used // 4096
            assert log[page // 8] >> page % 8 & 1, "the used ring's page"
        b.stop_log()
        before = os.pread(fds[-1], 1 << 20, 0)
        arrives(box, a, b, 9)
        assert os.pread(fds[-1], 1 << 20, 0) == before
        fds.append(b.start_log())  # and once more, after one that was cancelled
        arrives(box, a, b, 10)
        for fd in fds:
            os.close(fd)


@pytest.mark.parametrize("version", [V52, MAIN], ids=lambda v: v.name)
def test_device_state_of_a_paused_vm(version: Version) -> None:
    """From v52 on: saved behind a pause and GET_VRING_BASE, loaded before the first start."""
    with VhostBox() as box:
        b, a = pair(box, version)
        b.reset()
        r, w = os.pipe()
        save, load = m.DEVICE_STATE_FD.pack(0, 0), m.DEVICE_STATE_FD.pack(1, 0)
        assert b.get(Request.SET_DEVICE_STATE_FD, save, [w]) == m.U64.pack(0x100)
        os.close(w)
        state = os.read(r, 65536)
        os.close(r)
        assert b.get(Request.CHECK_DEVICE_STATE) == bytes(8)
        r, w = os.pipe()
        assert b.get(Request.SET_DEVICE_STATE_FD, load, [r]) == m.U64.pack(0x100)
        os.write(w, state)
        for fd in (r, w):
            os.close(fd)
        assert b.get(Request.CHECK_DEVICE_STATE) == bytes(8)
        b.set_up()
        arrives(box, a, b, 1)


def test_qemu_tells_the_log_without_wanting_an_acknowledgement() -> None:
    """It takes an answer of any size, and reads exactly one."""
    with VhostBox() as box:
        front = box.front(0)
        front.boot()
        known = ProtocolFeature.LOG_SHMFD | ProtocolFeature.REPLY_ACK | ProtocolFeature.DEVICE_STATE
        front.send(Request.SET_PROTOCOL_FEATURES, m.U64.pack(known))
        fd = os.memfd_create("vhost-log")
        os.ftruncate(fd, 1 << 20)
        assert front.ask(Request.SET_LOG_BASE, m.LOG.pack(1 << 20, 0), [fd]) == bytes(8)
        front.send(Request.SET_FEATURES, m.U64.pack(front.features | Feature.LOG_ALL))
        front.settle()
        os.close(fd)
