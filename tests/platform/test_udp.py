"""What the mesh assumes of the kernel's UDP: trains out, trains in, lanes steered to sockets."""

import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from mesh.core import steer

UDP_SEGMENT, UDP_GRO = 103, 104
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
MAX_RECORDS = 64
MAX_BYTES = 65536 - 40 - 8 - 22  # TRAIN_BYTES of mesh/core/train.h
TIMEOUT_S = 5.0


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Sender, and receiver with UDP_GRO."""
    family = request.param
    with (
        socket.socket(family, socket.SOCK_DGRAM) as sender,
        socket.socket(family, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        receiver.bind((LOOPBACK[family], 0))
        receiver.settimeout(TIMEOUT_S)
        sender.connect(receiver.getsockname())
        yield sender, receiver


def send_train(sender: socket.socket, data: bytes, record_bytes: int) -> None:
    control = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", record_bytes))]
    assert sender.sendmsg([data], control) == len(data)


def receive_train(receiver: socket.socket) -> tuple[bytes, int | None]:
    data, control, _, _ = receiver.recvmsg(65536, socket.CMSG_SPACE(4))
    strides = [
        struct.unpack("i", value)[0]
        for level, kind, value in control
        if (level, kind) == (socket.IPPROTO_UDP, UDP_GRO)
    ]
    return data, strides[0] if strides else None


@pytest.mark.parametrize("last", [1, 700, 1000])
def test_a_train_arrives_whole_and_says_its_stride(pair, last):
    data = bytes(i % 251 for i in range(9000 + last))
    send_train(pair[0], data, 1000)
    assert receive_train(pair[1]) == (data, 1000)


def test_one_datagram_alone_has_no_stride(pair):
    pair[0].send(b"alone")
    assert receive_train(pair[1]) == (b"alone", None)


def test_the_longest_trains(pair):
    data = bytes(MAX_RECORDS * 1000)
    send_train(pair[0], data, 1000)
    assert receive_train(pair[1]) == (data, 1000)
    data = bytes(MAX_BYTES)
    send_train(pair[0], data, 1448)
    assert receive_train(pair[1]) == (data, 1448)


def test_a_train_beyond_the_device_limit_is_cut_in_software(pair):
    """Why TRAIN_BYTES is less than a datagram may have."""
    send_train(pair[0], bytes(65507), 1448)
    data, stride = receive_train(pair[1])
    assert (len(data), stride) in [(1448, None), (65507, 1448)]


def test_a_train_of_too_many_bytes_is_refused(pair):
    with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
        send_train(pair[0], bytes(65536), 1448)


def test_without_gro_a_train_arrives_as_datagrams(pair):
    pair[1].setsockopt(socket.IPPROTO_UDP, UDP_GRO, 0)
    send_train(pair[0], b"a" * 100 + b"b" * 100 + b"c", 100)
    assert [pair[1].recv(2000) for _ in range(3)] == [b"a" * 100, b"b" * 100, b"c"]


def test_lanes_are_steered_to_sockets_in_the_order_of_binding():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        group: list[socket.socket] = []
        try:
            for _ in range(3):
                member = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                group.append(member)
                member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                member.settimeout(TIMEOUT_S)
                member.bind(group[0].getsockname() if len(group) > 1 else ("127.0.0.1", 0))
            steer(group[0].fileno(), 3)
            for lane in (*range(7), 31):
                record = struct.pack("<BBH", 4, 0, lane) + bytes(60)
                sender.sendto(record, group[0].getsockname())
                assert group[lane % 3].recv(100) == record
        finally:
            for member in group:
                member.close()
