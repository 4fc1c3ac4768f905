"""Messages that no honest front-end sends, one test for each row of docs/hostile.md."""

import os
import socket
import struct
from collections.abc import Callable, Iterable

import pytest

from tests.fakes.frontend import too_many_fds
from tests.fakes.neighbourhood import Neighbourhood, resident_bytes, usage
from vhost import messages as m
from vhost.messages import Request

Message = tuple[int, bytes, int]  # request, payload, descriptors

REQUESTS = [*range(46), 2**31, 2**32 - 1]
STATE = m.VRING_STATE
# A ring's number in each message that has one.
INDEXED: dict[str, Callable[[int], Message]] = {
    "SET_VRING_NUM": lambda i: (Request.SET_VRING_NUM, STATE.pack(i, 256), 0),
    "SET_VRING_ADDR": lambda i: (Request.SET_VRING_ADDR, m.VRING_ADDR.pack(i, 0, 1, 2, 3, 0), 0),
    "SET_VRING_BASE": lambda i: (Request.SET_VRING_BASE, STATE.pack(i, 1), 0),
    "GET_VRING_BASE": lambda i: (Request.GET_VRING_BASE, STATE.pack(i, 0), 0),
    "SET_VRING_ENABLE": lambda i: (Request.SET_VRING_ENABLE, STATE.pack(i, 0), 0),
    "SET_VRING_KICK": lambda i: (Request.SET_VRING_KICK, m.U64.pack(i), 1),
    "SET_VRING_CALL": lambda i: (Request.SET_VRING_CALL, m.U64.pack(i), 1),
    "SET_VRING_ERR": lambda i: (Request.SET_VRING_ERR, m.U64.pack(i), 1),
}


def send(block: Neighbourhood, message: Message, flags: int = m.VERSION) -> None:
    """With as many event counters as the message wants; what cannot be sent any more is not."""
    request, payload, count = message
    fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(count)]
    try:
        block.offender.send(request, payload, fds, flags)
    finally:
        for fd in fds:
            os.close(fd)


def refused(block: Neighbourhood, message: Message) -> None:
    """Answered so, and everything goes on."""
    request, payload, count = message
    fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(count)]
    assert block.offender.tell(request, payload, fds) != 0
    for fd in fds:
        os.close(fd)
    block.works()


def again(block: Neighbourhood, messages: Iterable[Message], times: int) -> None:
    """Sends all of them so many times, and looks whether memory or descriptors are used up."""
    wanted = list(messages)

    def rounds(count: int) -> None:
        for number in range(count):
            for message in wanted:
                send(block, message)
            if number % 10 == 0:
                block.offender.settle()
        block.offender.settle()

    rounds(times // 10)
    fds, memory = len(os.listdir("/proc/self/fd")), resident_bytes()
    rounds(times)
    assert len(os.listdir("/proc/self/fd")) == fds
    assert resident_bytes() - memory < 4 << 20


# ---- descriptors


@pytest.mark.parametrize("count", [28, 29, 200])
def test_cve_2019_14818_more_descriptors_than_any_message_has(count: int) -> None:
    with Neighbourhood(None) as block:
        block.offender.settle()
        fd = block.offender.ram.regions[0].fd
        for request in REQUESTS:
            assert block.offender.sock is not None
            message = m.HEADER.pack(request, m.VERSION, 8) + bytes(8)
            too_many_fds(block.offender.sock, message, [fd] * count)
            block.expect_gone("")
            block.come_back().settle()


def test_cve_2019_14818_vring_num_ten_thousand_times() -> None:
    with Neighbourhood(None) as block:
        block.offender.negotiate()
        again(block, [(Request.SET_VRING_NUM, STATE.pack(0, 256), 0)], 10_000)


def test_cve_2019_14818_descriptors_replaced_a_thousand_times() -> None:
    with Neighbourhood() as block:
        calls = [(Request.SET_VRING_CALL, m.U64.pack(i), 1) for i in range(2)]
        errors = [(Request.SET_VRING_ERR, m.U64.pack(i), 1) for i in range(2)]
        again(block, [*calls, *errors, (Request.SET_BACKEND_REQ_FD, b"", 1)], 1000)
        block.works()


@pytest.mark.parametrize("flags", [m.VERSION, m.VERSION | m.FLAG_NEED_REPLY])
def test_cve_2022_0669_descriptors_where_none_belong(flags: int) -> None:
    """With every request, known or not; the harness counts what stays open."""
    takes_one = {
        Request.SET_MEM_TABLE,
        Request.SET_VRING_KICK,
        Request.SET_VRING_CALL,
        Request.SET_VRING_ERR,
        Request.SET_BACKEND_REQ_FD,
    }
    with Neighbourhood(None) as block:
        for request in REQUESTS:
            if request in takes_one:
                continue
            block.offender.negotiate()
            before = len(os.listdir("/proc/self/fd"))
            for payload in (b"", bytes(8), bytes(24)):
                if block.ports[0].status()["state"] == "connected":
                    send(block, (request, payload, 1), flags)
                    block.turns(3)
            if block.ports[0].status()["state"] == "connected":
                assert len(os.listdir("/proc/self/fd")) == before
            block.come_back()


@pytest.mark.parametrize("count", [9, 28, 29, 200, 253])
def test_dpdk_218daf1664_control_data_that_is_cut_off(count: int) -> None:
    with Neighbourhood(None) as block:
        block.offender.settle()
        assert block.offender.sock is not None
        message = m.HEADER.pack(Request.SET_MEM_TABLE, m.VERSION, 8) + bytes(8)
        too_many_fds(block.offender.sock, message, [block.offender.ram.regions[0].fd] * count)
        block.expect_gone("")


def test_dpdk_218daf1664_descriptors_with_every_byte_of_a_message() -> None:
    """Each recvmsg() brings some; all of them together are too many."""
    with Neighbourhood(None) as block:
        sock = block.offender.sock
        assert sock is not None
        block.offender.settle()
        fd = block.offender.ram.regions[0].fd
        message = m.HEADER.pack(Request.SET_MEM_TABLE, m.VERSION, 4000)
        for byte in message + bytes(100):
            try:
                socket.send_fds(sock, [bytes([byte])], [fd])
            except BrokenPipeError:
                break
            block.pump()
        block.expect_gone("more file descriptors")


# ---- numbers


@pytest.mark.parametrize("index", [0x201, 0xFFFF, 0x10000, 0x10001, 2**31, 2**32 - 1], ids=hex)
@pytest.mark.parametrize("name", INDEXED)
def test_cve_2020_10723_ring_numbers_that_look_small_when_cut(name: str, index: int) -> None:
    """[passt] checks none of them."""
    with Neighbourhood() as block:
        message = INDEXED[name](index)
        if message[2]:  # bit 8 says: no descriptor
            message = (message[0], message[1], 0 if index & m.VRING_NO_FD else 1)
        send(block, message)
        block.expect_gone(name)
        block.come_back().boot()
        block.works()


@pytest.mark.parametrize("index", [255, 256])
def test_cve_2020_10723_the_last_ring_numbers(index: int) -> None:
    """They exist, without a role here: what is said of them changes nothing for the others."""
    with Neighbourhood() as block:
        for name in ("SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ENABLE", "GET_VRING_BASE"):
            send(block, INDEXED[name](index))
        assert block.offender.receive() == (Request.GET_VRING_BASE, STATE.pack(index, 1))
        if index < 256:
            for name in ("SET_VRING_CALL", "SET_VRING_ERR"):
                send(block, INDEXED[name](index))
        block.offender.settle()
        block.works()


def test_cve_2020_10723_a_ring_without_a_role_does_not_start() -> None:
    with Neighbourhood() as block:
        ring = block.offender.rings[1]
        send(block, INDEXED["SET_VRING_NUM"](255))
        block.offender.send(Request.SET_VRING_ADDR, block.offender.addresses(255, ring))
        refused(block, INDEXED["SET_VRING_KICK"](255))


@pytest.mark.parametrize("payload", [b"", bytes(8), b"\xff" * 1024], ids=len)
def test_cve_2020_10724_crypto_is_refused(payload: bytes) -> None:
    """And CVE-2020-14374 to 14378: lengths and double fetches of what we do not have."""
    with Neighbourhood() as block:
        refused(block, (Request.CLOSE_CRYPTO_SESSION, payload, 0))
        send(block, (Request.CREATE_CRYPTO_SESSION, payload, 0), m.VERSION | m.FLAG_NEED_REPLY)
        block.expect_gone("not offered")  # its answer would have a shape of its own


def test_cve_2020_10726_inflight_asked_for_again_and_again() -> None:
    """Each time the connection ends, as there is no answer that says no."""
    with Neighbourhood(None) as block:
        payload = struct.pack("=QQHH", 0, 0, 2, 256)

        def rounds(count: int) -> None:
            for _ in range(count):
                block.offender.settle()
                send(block, (Request.GET_INFLIGHT_FD, payload, 0))
                block.expect_gone("not offered")
                block.come_back()
            block.turns(3)

        rounds(50)
        before, memory = usage(), resident_bytes()
        rounds(500)
        assert usage() == before
        assert resident_bytes() - memory < 4 << 20


def test_cve_2020_10726_inflight_set_ten_thousand_times() -> None:
    with Neighbourhood() as block:
        payload = struct.pack("=QQHH", 4096, 0, 2, 256)
        fd = block.offender.ram.regions[0].fd

        def rounds(count: int) -> None:
            for _ in range(count):
                assert block.offender.tell(Request.SET_INFLIGHT_FD, payload, [fd]) != 0

        rounds(100)
        before, memory = usage(), resident_bytes()
        rounds(10_000)
        assert usage() == before
        assert resident_bytes() - memory < 4 << 20
        block.works()


@pytest.mark.parametrize("queues", [0, 3, 257, 65535])
@pytest.mark.parametrize("size", [0, 256, 65535])
def test_cve_2021_3839_inflight_of_many_queues(queues: int, size: int) -> None:
    """[QEMU 3974, 3675]: sizes that are cut, queues that are not there."""
    with Neighbourhood() as block:
        for bytes_ in (0, 4096, 2**32 + 8, 2**64 - 1):
            refused(block, (32, struct.pack("=QQHH", bytes_, 0, queues, size), 1))


@pytest.mark.parametrize("count", [0, 9, 510, 2**31, 2**32 - 1])
def test_dpdk_4d490c7ce3_regions_that_are_not_there(count: int) -> None:
    """[passt] looks at the number after it has used it."""
    with Neighbourhood() as block:
        payload = m.MEMORY_HEADER.pack(count, 0) + bytes(8 * m.MEMORY_REGION.size)
        fds = [block.offender.ram.regions[0].fd] * 8
        block.offender.send(Request.SET_MEM_TABLE, payload, fds)
        block.expect_gone("regions")


@pytest.mark.parametrize("request_", [0, 46, 2**31 - 1, 2**31, 2**32 - 1])
def test_dpdk_cdc37ca3d0_requests_beyond_the_table(request_: int) -> None:
    with Neighbourhood() as block:
        refused(block, (request_, bytes(8), 0))
        send(block, (request_, bytes(8), 0))
        block.expect_gone("not offered")


@pytest.mark.parametrize("num", [0, 3, 255, 32769, 65535, 65536, 2**32 - 1])
def test_qemu_4403_ring_sizes_that_cannot_be(num: int) -> None:
    """[QEMU 3882]: of a ring that runs, and of one that does not."""
    with Neighbourhood() as block:
        refused(block, (Request.SET_VRING_NUM, STATE.pack(1, num), 0))
        block.offender.stop_ring(1)
        assert block.offender.tell(Request.SET_VRING_NUM, STATE.pack(1, num)) != 0
        block.offender.rings.pop(1).close()
        block.offender.start_ring(1)
        block.offender.settle()
        block.works()


@pytest.mark.parametrize("num", [1, 128, 512, 32768])
def test_qemu_3882_a_size_changed_while_the_ring_runs(num: int) -> None:
    with Neighbourhood() as block:
        refused(block, (Request.SET_VRING_NUM, STATE.pack(1, num), 0))
        refused(block, (Request.SET_VRING_NUM, STATE.pack(0, num), 0))
        refused(block, (Request.SET_VRING_BASE, STATE.pack(1, num), 0))


# ---- the stream


def test_a_message_split_byte_by_byte() -> None:
    with Neighbourhood() as block:
        sock = block.offender.sock
        assert sock is not None
        message = m.HEADER.pack(Request.SET_VRING_ENABLE, m.VERSION | m.FLAG_NEED_REPLY, 8)
        for byte in message + STATE.pack(1, 1):
            sock.send(bytes([byte]))
            block.pump()
        assert block.offender.receive() == (Request.SET_VRING_ENABLE, m.U64.pack(0))
        block.works()


@pytest.mark.parametrize("size", [4097, 65536, 2**31, 2**32 - 1])
def test_a_payload_of_more_than_4_kib(size: int) -> None:
    """[passt]: a wrong message costs the one connection that it came through."""
    with Neighbourhood() as block:
        assert block.offender.sock is not None
        block.offender.sock.send(m.HEADER.pack(Request.GET_FEATURES, m.VERSION, size))
        block.expect_gone("too many")
        block.come_back().boot()
        block.works()


@pytest.mark.parametrize("flags", [0, 2, 3, m.VERSION | m.FLAG_REPLY, 2**32 - 1], ids=hex)
def test_the_reply_flag_or_another_version(flags: int) -> None:
    with Neighbourhood() as block:
        send(block, (Request.GET_FEATURES, b"", 0), flags)
        block.expect_gone("flags")


@pytest.mark.parametrize("length", [0, 1, 7, 9, 11, 39, 41, 4096])
@pytest.mark.parametrize("request_", list(Request), ids=lambda r: r.name)
def test_payloads_of_a_wrong_length(request_: Request, length: int) -> None:
    """Nothing behind the payload is read: refused, ended, or without effect on the rings."""
    with Neighbourhood() as block:
        send(block, (request_, bytes(length), 0))
        block.turns(2)
        if request_ == Request.RESET_DEVICE and not length:
            block.expect_reset()
            block.turns(2)
        if block.ports[0].status()["state"] == "listening":
            block.expect_gone("")
            block.come_back().boot()
        block.works()


def test_a_front_end_that_goes_away_in_the_middle_of_a_message() -> None:
    with Neighbourhood(None) as block:
        for length in range(21):
            block.offender.settle()
            assert block.offender.sock is not None
            message = m.HEADER.pack(Request.SET_FEATURES, m.VERSION, 8) + bytes(8)
            fds = [block.offender.ram.regions[0].fd] if length else []
            socket.send_fds(block.offender.sock, [message[: max(length, 1)]], fds)
            block.pump()
            block.offender.sock.shutdown(socket.SHUT_RDWR)
            block.expect_gone("")
            block.come_back()
        block.offender.boot()
        block.works()
