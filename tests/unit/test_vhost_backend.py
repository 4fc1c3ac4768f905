"""The protocol machine: negotiation, configuration space, rings."""

import struct

import pytest

from tests.fakes.wire import ALL, MAC, SPLIT, Wire, u64
from vhost import messages as m
from vhost.errors import RemoteError
from vhost.messages import Feature, ProtocolFeature, Request


@pytest.fixture
def wire() -> Wire:
    wire = Wire()
    wire.negotiate()
    return wire


# ---- features


def test_what_is_offered() -> None:
    wire = Wire()
    assert u64(wire.send(Request.GET_FEATURES)) == ALL
    assert u64(wire.send(Request.GET_PROTOCOL_FEATURES)) == int(m.OFFERED_PROTOCOL_FEATURES)
    assert u64(wire.send(Request.GET_QUEUE_NUM)) == 128


def test_bits_that_were_not_offered_are_refused(wire: Wire) -> None:
    assert wire.asked(Request.SET_FEATURES, m.U64.pack(SPLIT | 1 << 60)) == 1
    assert wire.backend.features == SPLIT
    assert wire.asked(Request.SET_PROTOCOL_FEATURES, m.U64.pack(1 << 12)) == 1


def test_an_answer_is_given_when_asked_for_and_possible() -> None:
    wire = Wire()
    assert wire.asked(Request.SET_OWNER) is None, "REPLY_ACK was not negotiated"
    reply_ack = m.U64.pack(ProtocolFeature.REPLY_ACK)
    assert wire.asked(Request.SET_PROTOCOL_FEATURES, reply_ack) == 0, "User Mode Linux waits for it"
    assert wire.asked(Request.SET_OWNER) == 0
    assert wire.send(Request.SET_OWNER) is None
    assert wire.asked(Request.GET_FEATURES) == ALL, "one answer, not two"


def test_one_pair_unless_the_front_end_can_tell_about_more(wire: Wire) -> None:
    assert wire.device.pairs == 127, "and a control ring that messages can name"
    wire.negotiate(protocol=int(ProtocolFeature.MQ))
    assert wire.device.pairs == 128
    wire.negotiate(protocol=int(ProtocolFeature.REPLY_ACK))
    assert wire.device.pairs == 1
    wire.negotiate(ALL & ~Feature.MQ)
    assert wire.device.pairs == 1


# ---- the configuration space


def test_configuration_space(wire: Wire) -> None:
    answer = wire.send(Request.GET_CONFIG, m.CONFIG_HEADER.pack(0, 12, 0) + bytes(12))
    assert answer is not None
    assert answer[:12] == m.CONFIG_HEADER.pack(0, 12, 0)
    assert answer[12:] == MAC + struct.pack("<HHH", 1, 127, 1400)
    wire.negotiate(protocol=int(ProtocolFeature.CONFIG))
    answer = wire.send(Request.GET_CONFIG, m.CONFIG_HEADER.pack(8, 248, 0) + bytes(248))
    assert answer is not None
    assert answer[12:] == struct.pack("<HH", 1, 1400) + bytes(244)
    assert wire.send(Request.SET_CONFIG, m.CONFIG_HEADER.pack(0, 6, 0) + bytes(6)) is None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        bytes(11),
        m.CONFIG_HEADER.pack(0, 12, 0) + bytes(11),
        m.CONFIG_HEADER.pack(250, 7, 0) + bytes(7),
        m.CONFIG_HEADER.pack(2**32 - 1, 2, 0) + bytes(2),
    ],
    ids=len,
)
@pytest.mark.parametrize("request_", [Request.GET_CONFIG, Request.SET_CONFIG])
def test_wrong_ranges(wire: Wire, request_: Request, payload: bytes) -> None:
    with pytest.raises(RemoteError):
        wire.send(request_, payload)


# ---- rings


def test_a_ring_starts_with_its_kick_and_stops_with_get_vring_base(wire: Wire) -> None:
    wire.memory()
    wire.ready(1)
    spec = wire.device.running[1]
    assert (spec.role, spec.num, spec.desc, spec.used, spec.avail) == ("tx", 256, 1, 2, 3)
    assert (spec.kick_fd, spec.call_fd, spec.enabled) == (50, 51, False)
    answer = wire.send(Request.GET_VRING_BASE, m.VRING_STATE.pack(1, 0))
    assert answer == m.VRING_STATE.pack(1, 77)
    assert not wire.device.running
    assert wire.device.closed == [40, 50]
    assert wire.send(Request.GET_VRING_BASE, m.VRING_STATE.pack(1, 0)) == answer


@pytest.mark.parametrize("late", ["memory", "addresses"])
def test_whatever_comes_last_starts_it(wire: Wire, late: str) -> None:
    addresses = m.VRING_ADDR.pack(0, 0, 1, 2, 3, 0)
    wire.send(Request.SET_VRING_NUM, m.VRING_STATE.pack(0, 256))
    wire.send(Request.SET_VRING_KICK, m.U64.pack(0), [50])
    if late == "memory":
        wire.send(Request.SET_VRING_ADDR, addresses)
        wire.memory()
    else:
        wire.memory()
        wire.send(Request.SET_VRING_ADDR, addresses)
    assert list(wire.device.running) == [0]


def test_a_ring_without_kicks_is_polled(wire: Wire) -> None:
    wire.memory()
    wire.send(Request.SET_VRING_NUM, m.VRING_STATE.pack(1, 2))
    wire.send(Request.SET_VRING_ADDR, m.VRING_ADDR.pack(1, 0, 1, 2, 3, 0))
    wire.send(Request.SET_VRING_KICK, m.U64.pack(1 | m.VRING_NO_FD))
    assert wire.device.running[1].kick_fd == -1


def test_changes_to_a_running_ring(wire: Wire) -> None:
    wire.memory()
    wire.ready(0)
    wire.send(Request.SET_VRING_ENABLE, m.VRING_STATE.pack(0, 1))
    wire.send(Request.SET_VRING_CALL, m.U64.pack(0), [60])
    assert wire.device.calls == [(0, 1), (0, 60)]
    assert wire.device.closed == [40, 51]
    wire.send(Request.SET_VRING_ADDR, m.VRING_ADDR.pack(0, 1, 1, 2, 3, 0))
    assert wire.device.running[0].desc == 1, "the same addresses: nothing happens"
    wire.send(Request.SET_VRING_ADDR, m.VRING_ADDR.pack(0, 0, 4, 5, 6, 0))
    assert wire.device.running[0].desc == 4
    wire.send(Request.SET_VRING_KICK, m.U64.pack(0), [61])
    assert wire.device.running[0].kick_fd == 61
    assert wire.asked(Request.SET_VRING_NUM, m.VRING_STATE.pack(0, 128)) == 1
    assert wire.asked(Request.SET_VRING_BASE, m.VRING_STATE.pack(0, 1)) == 1
    wire.send(Request.SET_FEATURES, m.U64.pack(int(Feature.PROTOCOL_FEATURES)))
    assert wire.device.running[0].features == Feature.PROTOCOL_FEATURES


def test_a_packed_ring_tells_where_it_is_in_both_halves() -> None:
    wire = Wire()
    wire.negotiate(ALL)
    wire.memory()
    wire.ready(1)
    answer = wire.send(Request.GET_VRING_BASE, m.VRING_STATE.pack(1, 0))
    assert answer == m.VRING_STATE.pack(1, 77 | 77 << 16)
    wire.send(Request.SET_VRING_NUM, m.VRING_STATE.pack(1, 99))
    wire.send(Request.SET_VRING_BASE, m.VRING_STATE.pack(1, 77 | 77 << 16))
    wire.send(Request.SET_VRING_KICK, m.U64.pack(1), [60])
    assert (wire.device.running[1].num, wire.device.running[1].base & 0xFFFF) == (99, 77)


def test_without_protocol_features_every_ring_is_enabled() -> None:
    wire = Wire()
    wire.send(Request.SET_VRING_CALL, m.U64.pack(0), [50])
    wire.send(Request.SET_FEATURES, m.U64.pack(int(Feature.VERSION_1)))
    wire.memory()
    wire.ready(0)
    wire.ready(1)
    assert [spec.enabled for spec in wire.device.running.values()] == [True, True]


@pytest.mark.parametrize(
    ("index", "role"), [(0, "rx"), (1, "tx"), (2, "rx"), (253, "tx"), (254, "control")], ids=str
)
def test_roles_with_many_pairs(wire: Wire, index: int, role: str) -> None:
    wire.memory()
    wire.ready(index)
    assert wire.device.running[index].role == role


def test_the_control_ring_follows_the_pairs() -> None:
    wire = Wire()
    wire.negotiate(protocol=int(ProtocolFeature.REPLY_ACK))
    wire.memory()
    wire.ready(2)
    assert wire.device.running[2].role == "control"
    with pytest.raises(RemoteError):
        wire.ready(3)


def test_closing_gives_everything_back(wire: Wire) -> None:
    wire.memory()
    wire.ready(0, 50)
    wire.ready(1, 60)
    wire.send(Request.SET_VRING_ERR, m.U64.pack(1), [70])
    wire.send(Request.SET_BACKEND_REQ_FD, fds=[80])
    wire.send(Request.SET_BACKEND_REQ_FD, fds=[81])
    wire.backend.close()
    assert not wire.device.running
    assert wire.device.regions == ()
    assert sorted(wire.device.closed) == [40, 50, 51, 60, 61, 70, 80, 81]


# ---- wrong messages

STATE = m.VRING_STATE
WRONG: dict[str, tuple[int, bytes, int]] = {
    "unknown request": (99, b"", 0),
    "request -1": (2**32 - 1, b"", 0),
    "crypto session, not offered": (26, bytes(8), 0),
    "inflight, not offered [CVE-2020-10726]": (31, bytes(24), 0),
    "inflight queues [CVE-2021-3839]": (32, struct.pack("=QQHH", 0, 0, 65535, 1), 1),
    "short features": (Request.SET_FEATURES, bytes(7), 0),
    "long features": (Request.SET_FEATURES, bytes(9), 0),
    "descriptor where none belongs [CVE-2022-0669]": (Request.GET_FEATURES, b"", 1),
    "28 descriptors [CVE-2019-14818]": (Request.SET_VRING_KICK, m.U64.pack(0), 28),
    "ring 257 to enable": (Request.SET_VRING_ENABLE, STATE.pack(257, 1), 0),
    "ring 65536 [CVE-2020-10723]": (Request.SET_VRING_NUM, STATE.pack(65536, 256), 0),
    "ring 2^32-1": (Request.GET_VRING_BASE, STATE.pack(2**32 - 1, 0), 0),
    "ring 65535 address": (Request.SET_VRING_ADDR, m.VRING_ADDR.pack(65535, 0, 1, 2, 3, 0), 0),
    "kick with high bits": (Request.SET_VRING_KICK, m.U64.pack(0x10000), 1),
    "kick without descriptor": (Request.SET_VRING_KICK, m.U64.pack(0), 0),
    "kick with and without": (Request.SET_VRING_KICK, m.U64.pack(0x100), 1),
    "size 0": (Request.SET_VRING_NUM, STATE.pack(0, 0), 0),
    "size 3": (Request.SET_VRING_NUM, STATE.pack(0, 3), 0),
    "size 65536": (Request.SET_VRING_NUM, STATE.pack(0, 65536), 0),
    "enabled twice as much": (Request.SET_VRING_ENABLE, STATE.pack(0, 2), 0),
    "no regions": (Request.SET_MEM_TABLE, m.MEMORY_HEADER.pack(0, 0), 0),
    "nine regions": (Request.SET_MEM_TABLE, m.MEMORY_HEADER.pack(9, 0) + bytes(288), 8),
    "2^32-1 regions": (Request.SET_MEM_TABLE, m.MEMORY_HEADER.pack(2**32 - 1, 0), 1),
    "a region too few": (Request.SET_MEM_TABLE, m.MEMORY_HEADER.pack(2, 0) + bytes(32), 2),
    "a descriptor too few": (Request.SET_MEM_TABLE, m.MEMORY_HEADER.pack(1, 0) + bytes(32), 0),
    "no room for the count": (Request.SET_MEM_TABLE, bytes(4), 0),
    "no request socket": (Request.SET_BACKEND_REQ_FD, b"", 0),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_messages_end_the_connection_and_keep_no_descriptor(wire: Wire, case: str) -> None:
    request, payload, fds = WRONG[case]
    with pytest.raises(RemoteError) as error:
        wire.send(request, payload, range(100, 100 + fds))
    assert m.request_name(request) in str(error.value)
    assert sorted(wire.device.closed) == list(range(100, 100 + fds))
    assert not wire.device.running


@pytest.mark.parametrize("flags", [0, 2, 3, m.VERSION | m.FLAG_REPLY])
def test_wrong_flags(wire: Wire, flags: int) -> None:
    with pytest.raises(RemoteError):
        wire.send(Request.GET_FEATURES, flags=flags)


def test_refusals_are_answered_when_answers_are_wanted(wire: Wire) -> None:
    wire.device.refuse = True
    payload = m.MEMORY_HEADER.pack(1, 0) + m.MEMORY_REGION.pack(0, 4096, 0, 0)
    assert wire.asked(Request.SET_MEM_TABLE, payload, [40]) == 1
    assert not wire.backend.has_memory
    assert wire.asked(99) == 1
    assert "not offered" in wire.backend.last_step
    with pytest.raises(RemoteError):
        wire.memory()


def test_repeating_oneself_leaks_nothing(wire: Wire) -> None:
    wire.memory()
    for number in range(1000):
        wire.ready(0, 1000 + 2 * number)
        wire.send(Request.GET_VRING_BASE, STATE.pack(0, 0))
    assert len(wire.device.closed) == len(set(wire.device.closed)) == 1 + 1000 + 999


def test_names() -> None:
    assert m.request_name(5) == "SET_MEM_TABLE"
    assert m.request_name(500) == "request 500"
    assert m.feature_names(1 << 15 | 1 << 33) == ["MRG_RXBUF", "BIT_33"]
    assert m.feature_names(1 << 9 | 1, ProtocolFeature) == ["MQ", "CONFIG"]
