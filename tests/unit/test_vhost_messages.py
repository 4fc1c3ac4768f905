"""Messages about the card as a whole, its memory and its state: right, wrong, twice, at the wrong
time.  The device only writes down what is asked of it."""

import pytest

from tests.fakes.wire import ALL, Wire, u64
from vhost import messages as m
from vhost import state_messages
from vhost.errors import RemoteError
from vhost.messages import DeviceStatus, Feature, ProtocolFeature, Request

STATE = m.VRING_STATE


@pytest.fixture
def wire() -> Wire:
    wire = Wire()
    wire.negotiate()
    return wire


def running(wire: Wire) -> Wire:
    wire.memory()
    wire.ready(0, 50)
    wire.ready(1, 60)
    return wire


# ---- what is not offered

OF_ITS_OWN = [
    Request.CREATE_CRYPTO_SESSION,
    Request.POSTCOPY_ADVISE,
    Request.GET_INFLIGHT_FD,
    Request.GET_SHARED_OBJECT,
    Request.GET_SHMEM_CONFIG,
]
PLAIN = [
    Request.IOTLB_MSG,
    Request.SET_VRING_ENDIAN,
    Request.CLOSE_CRYPTO_SESSION,
    Request.POSTCOPY_LISTEN,
    Request.POSTCOPY_END,
    Request.SET_INFLIGHT_FD,
    Request.GPU_SET_SOCKET,
    Request.VRING_KICK,
]


@pytest.mark.parametrize("request_", [*PLAIN, 45, 2**31])
def test_what_is_not_offered_is_refused_by_its_name(wire: Wire, request_: int) -> None:
    assert wire.asked(request_, bytes(8), [90]) == 1
    assert wire.backend.last_step == f"{m.request_name(request_)} refused: not offered"
    assert wire.device.closed == [90]
    with pytest.raises(RemoteError, match=m.request_name(request_)):
        wire.send(request_, bytes(8))


@pytest.mark.parametrize("request_", OF_ITS_OWN)
def test_who_waits_for_an_answer_that_cannot_come_sees_the_end(
    wire: Wire, request_: Request
) -> None:
    for flags in (m.VERSION, m.VERSION | m.FLAG_NEED_REPLY):
        with pytest.raises(RemoteError, match=request_.name):
            wire.send(request_, bytes(24), flags=flags)


def test_every_request_has_an_end(wire: Wire) -> None:
    """No request that wants an answer goes without one, and without an end."""
    for request in Request:
        wire = Wire()
        wire.negotiate()
        try:
            payload = m.U64.pack(ProtocolFeature.REPLY_ACK)
            answer = wire.send(request, payload, flags=m.VERSION | m.FLAG_NEED_REPLY)
        except RemoteError:
            continue
        assert answer is not None, request.name


# ---- memory slots


def slot(gpa: int, size: int = 4096, user: int | None = None, offset: int = 0) -> bytes:
    return m.MEMORY_SLOT.pack(0, gpa, size, gpa if user is None else user, offset)


def test_slots_come_and_go_and_what_stays_is_the_same(wire: Wire) -> None:
    assert u64(wire.send(Request.GET_MAX_MEM_SLOTS)) == 509
    assert wire.asked(Request.ADD_MEM_REG, slot(0), [40]) == 0
    assert wire.asked(Request.ADD_MEM_REG, slot(1 << 20), [41]) == 0
    first = wire.device.regions[0]
    assert wire.asked(Request.REM_MEM_REG, slot(1 << 20, offset=77), [42]) == 0, "offset ignored"
    assert wire.device.regions == (first,)
    assert wire.device.regions[0] is first
    assert sorted(wire.device.closed) == [40, 41, 42]
    assert wire.asked(Request.REM_MEM_REG, slot(1 << 20)) == 1, "it is gone already"


def test_a_slot_that_is_told_of_per_pair_stays_until_it_is_removed_as_often(wire: Wire) -> None:
    """QEMU 7.2 with several queue pairs."""
    for _ in range(4):
        assert wire.asked(Request.ADD_MEM_REG, slot(0), [40]) == 0
    assert wire.device.closed == [40] * 4
    for _ in range(3):
        assert wire.asked(Request.REM_MEM_REG, slot(0)) == 0
        assert len(wire.device.regions) == 1
    assert wire.asked(Request.REM_MEM_REG, slot(0)) == 0
    assert wire.device.regions == ()
    assert wire.asked(Request.REM_MEM_REG, slot(0)) == 1


def test_a_whole_table_forgets_how_often_a_slot_was_told_of(wire: Wire) -> None:
    for _ in range(2):
        wire.send(Request.ADD_MEM_REG, slot(0), [40])
    table = m.MEMORY_HEADER.pack(1, 0) + m.MEMORY_REGION.pack(0, 4096, 0, 0)
    assert wire.asked(Request.SET_MEM_TABLE, table, [40]) == 0
    assert wire.asked(Request.REM_MEM_REG, slot(0)) == 0
    assert wire.device.regions == ()


@pytest.mark.parametrize("wrong", [slot(1), slot(0, 8192), slot(0, user=1)], ids=len)
def test_a_slot_is_removed_by_exact_match(wire: Wire, wrong: bytes) -> None:
    wire.send(Request.ADD_MEM_REG, slot(0), [40])
    assert wire.asked(Request.REM_MEM_REG, wrong) == 1
    assert len(wire.device.regions) == 1


def test_the_five_hundred_and_tenth_slot_is_refused(wire: Wire) -> None:
    for number in range(509):
        assert wire.asked(Request.ADD_MEM_REG, slot(number << 20), [40]) == 0
    assert wire.asked(Request.ADD_MEM_REG, slot(600 << 20), [40]) == 1
    assert "509" in wire.backend.last_step
    assert len(wire.device.closed) == 510


@pytest.mark.parametrize("fds", [[], [40, 41]], ids=len)
def test_a_slot_has_one_descriptor(wire: Wire, fds: list[int]) -> None:
    with pytest.raises(RemoteError):
        wire.send(Request.ADD_MEM_REG, slot(0), fds)
    assert wire.device.closed == fds[::-1] or wire.device.closed == fds


def test_a_slot_that_cannot_be_mapped_is_refused_and_changes_nothing(wire: Wire) -> None:
    wire.device.refuse = True
    assert wire.asked(Request.ADD_MEM_REG, slot(0), [40]) == 1
    assert not wire.backend.has_memory
    assert wire.device.closed == [40]


def test_rings_start_when_their_region_is_there(wire: Wire) -> None:
    wire.ready(0)
    assert not wire.device.running
    wire.send(Request.ADD_MEM_REG, slot(0), [40])
    assert list(wire.device.running) == [0]


def test_a_ring_whose_region_goes_stops_and_says_why(wire: Wire) -> None:
    running(wire)
    wire.device.lost = [1]
    assert wire.asked(Request.ADD_MEM_REG, slot(1 << 30), [41]) == 0
    assert wire.backend.rings[1].reason == "its memory was removed"
    assert (wire.backend.rings[0].started, wire.backend.rings[1].started) == (True, False)
    wire.device.lost = []
    wire.send(Request.ADD_MEM_REG, slot(1 << 31), [41])
    assert wire.backend.rings[1].started
    assert wire.backend.rings[1].reason == ""


# ---- status and reset


def test_status_is_kept_and_zero_stops_the_rings(wire: Wire) -> None:
    running(wire)
    status = DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.DRIVER_OK
    assert wire.asked(Request.SET_STATUS, m.U64.pack(status)) == 0
    assert u64(wire.send(Request.GET_STATUS)) == status
    assert len(wire.device.running) == 2
    assert wire.asked(Request.SET_STATUS, m.U64.pack(256)) == 1
    assert wire.asked(Request.SET_STATUS, m.U64.pack(0)) == 0
    assert wire.asked(Request.SET_STATUS, m.U64.pack(0)) == 0, "twice"
    assert not wire.device.running
    assert set(wire.device.forgotten) == {0, 1}
    assert wire.backend.has_memory
    wire.ready(0, 70)
    assert list(wire.device.running) == [0], "the next driver starts over"


def test_reset_keeps_owner_memory_and_calls(wire: Wire) -> None:
    running(wire)
    wire.send(Request.SET_VRING_ENABLE, STATE.pack(0, 1))
    wire.device.closed.clear()
    for _ in range(2):
        assert wire.asked(Request.RESET_DEVICE) == 0
    assert not wire.device.running
    assert wire.device.closed == [50, 60], "the kicks"
    assert (wire.backend.features, wire.backend.status) == (0, 0)
    assert wire.backend.has_memory
    ring = wire.backend.rings[0]
    assert (ring.call_fd, ring.num, ring.addresses, ring.kick_fd) == (51, 0, None, None)
    wire.send(Request.SET_FEATURES, m.U64.pack(ALL))
    wire.ready(0, 80)
    assert list(wire.device.running) == [0]


# ---- the network


@pytest.mark.parametrize(("mtu", "answer"), [(1400, 0), (68, 0), (1401, 1), (67, 1), (2**16, 1)])
def test_an_mtu_that_the_bridge_carries(wire: Wire, mtu: int, answer: int) -> None:
    assert wire.asked(Request.NET_SET_MTU, m.U64.pack(mtu)) == answer


def test_an_mtu_that_is_too_large_is_explained(wire: Wire) -> None:
    with pytest.raises(RemoteError, match=r"9000 is more than the bridge's 1400: set"):
        wire.send(Request.NET_SET_MTU, m.U64.pack(9000))


def test_rarp_announces_the_address(wire: Wire) -> None:
    assert wire.asked(Request.SEND_RARP, bytes.fromhex("52540012345600ff")) == 0
    assert wire.device.macs == [bytes.fromhex("525400123456")]
    for wrong in ("0000000000000000", "0154001234560000", "ffffffffffff0000"):
        assert wire.asked(Request.SEND_RARP, bytes.fromhex(wrong)) == 1


# ---- device state

SAVE, LOAD = m.DEVICE_STATE_FD.pack(0, 0), m.DEVICE_STATE_FD.pack(1, 0)
NO_FD = m.VRING_NO_FD


def saved(wire: Wire) -> bytes:
    running(wire)
    for index in (0, 1):
        wire.send(Request.GET_VRING_BASE, STATE.pack(index, 0))
    assert u64(wire.send(Request.SET_DEVICE_STATE_FD, SAVE, [90])) == NO_FD
    assert u64(wire.send(Request.CHECK_DEVICE_STATE)) == 0
    ((fd, data),) = wire.device.sent
    assert fd == 90
    return data


def test_state_is_saved_and_loaded(wire: Wire) -> None:
    data = saved(wire)
    target = Wire()
    target.negotiate()
    assert u64(target.send(Request.SET_DEVICE_STATE_FD, LOAD, [91])) == NO_FD
    target.device.state = data
    assert u64(target.send(Request.CHECK_DEVICE_STATE)) == 0
    assert {i: r.base for i, r in target.backend.rings.items()} == {0: 77, 1: 77}


def test_state_of_the_largest_card_fits_a_pipe(wire: Wire) -> None:
    for index in range(m.MAX_RINGS):
        wire.send(Request.SET_VRING_NUM, STATE.pack(index, 256))
    wire.send(Request.SET_DEVICE_STATE_FD, SAVE, [90])
    assert len(wire.device.sent[0][1]) < 4096


def broken(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_a_wrong_state_is_refused(wire: Wire) -> None:
    data = saved(wire)
    states = [broken(data, at) for at in range(len(data))]
    states += [b"", data[:-1], data + b"\0", bytes(4096)]
    target = Wire()
    target.negotiate()
    for state in states:
        target.send(Request.SET_DEVICE_STATE_FD, LOAD, [91])
        target.device.state = state
        assert u64(target.send(Request.CHECK_DEVICE_STATE)) == 1
        assert "CHECK_DEVICE_STATE refused" in target.backend.last_step
    assert not target.backend.rings


def test_a_state_with_features_that_are_not_offered_is_refused(wire: Wire) -> None:
    wire.backend.features = 1 << 60
    state = state_messages.pack(wire.backend)
    wire.send(Request.SET_DEVICE_STATE_FD, LOAD, [91])
    wire.device.state = state
    assert u64(wire.send(Request.CHECK_DEVICE_STATE)) == 1
    assert "not offered" in wire.backend.last_step


def test_state_is_transferred_while_rings_are_stopped(wire: Wire) -> None:
    running(wire)
    assert u64(wire.send(Request.SET_DEVICE_STATE_FD, SAVE, [90])) == NO_FD | 1
    assert "running" in wire.backend.last_step
    assert 90 in wire.device.closed


@pytest.mark.parametrize(("direction", "phase"), [(2, 0), (0, 1), (2**32 - 1, 2**32 - 1)], ids=str)
def test_directions_and_phases_that_cannot_be(wire: Wire, direction: int, phase: int) -> None:
    payload = m.DEVICE_STATE_FD.pack(direction, phase)
    assert u64(wire.send(Request.SET_DEVICE_STATE_FD, payload, [90])) == NO_FD | 1


def test_state_needs_a_stream(wire: Wire) -> None:
    with pytest.raises(RemoteError):
        wire.send(Request.SET_DEVICE_STATE_FD, SAVE)
    wire.device.refuse = True
    assert u64(wire.send(Request.SET_DEVICE_STATE_FD, SAVE, [90])) == NO_FD | 1


def test_a_load_that_has_no_end_is_refused(wire: Wire) -> None:
    wire.send(Request.SET_DEVICE_STATE_FD, LOAD, [90])
    wire.device.refuse = True
    assert u64(wire.send(Request.CHECK_DEVICE_STATE)) == 1


def test_everything_offered_is_known() -> None:
    assert int(m.OFFERED_PROTOCOL_FEATURES) & ~sum(ProtocolFeature) == 0
    assert int(m.OFFERED_FEATURES) & ~sum(Feature) == 0
