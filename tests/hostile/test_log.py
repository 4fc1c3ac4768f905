"""Logs of written pages that are not what the front-end says, one test for each row of
docs/hostile.md."""

import os
from collections.abc import Iterator

import pytest

from tests.fakes.neighbourhood import ENOUGH, OFFENDER, Neighbourhood
from tests.fakes.vhostbox import A, B, frame, mac
from vhost.device import CoreDevice
from vhost.errors import RefusedError
from vhost.messages import Feature

RX, TX = 0, 1
PAGE = 4096
RAM = 0x1000_0000
LOG_BYTES = (RAM + (8 << 20)) // PAGE // 8  # a bit for each page of the offender's memory
FILE_BYTES = 1 << 20
KINDS = {"split": ENOUGH, "packed": ENOUGH | Feature.RING_PACKED}

kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def log_fd() -> Iterator[int]:
    fd = os.memfd_create("log")
    os.ftruncate(fd, FILE_BYTES)
    yield fd
    os.close(fd)


def device_of(block: Neighbourhood) -> CoreDevice:
    return block.ports[OFFENDER]._device


def to_offender(block: Neighbourhood, count: int) -> None:
    """Frames that are written into the offender's memory."""
    block.partner.received()
    block.offender.post(count)
    for length in range(64, 64 + count):
        block.partner.transmit(mac(A) + mac(B) + frame(length)[12:])
    block.turns(3)
    assert [len(f) for f in block.offender.frames()] == list(range(64, 64 + count))
    block.partner.ring(TX).reap()


@pytest.mark.parametrize(
    ("size", "offset"),
    [
        (2**64 - 1, 0),
        (2**64 - 1, 1),
        (2**64 - 4096, 4096),
        (4096, 2**64 - 4096),
        (4096, 2**64 - 1),
        (2**63, 2**63),
        (2**63 - 1, 0),
        (FILE_BYTES, 1),
        (FILE_BYTES + 1, 0),
        (1, FILE_BYTES),
        (0, 0),
    ],
    ids=hex,
)
def test_cve_2020_10722_logs_whose_size_and_offset_overflow(
    size: int, offset: int, log_fd: int
) -> None:
    with Neighbourhood(ENOUGH | Feature.LOG_ALL) as block:
        with pytest.raises(RefusedError):
            device_of(block).set_log(log_fd, size, offset)
        to_offender(block, 3)
        assert os.pread(log_fd, FILE_BYTES, 0) == bytes(FILE_BYTES)
        block.works()


@kinds
@pytest.mark.parametrize("offset", [1, 8, 4096, 5000])
def test_dpdk_bdd96d8ac7_a_log_that_begins_within_its_file(
    kind: str, offset: int, log_fd: int
) -> None:
    """[HEAD]: the offset counts once; not a bit is set outside of what was given."""
    with Neighbourhood(KINDS[kind] | Feature.LOG_ALL) as block:
        device_of(block).set_log(log_fd, LOG_BYTES, offset)
        to_offender(block, 5)
        data = os.pread(log_fd, FILE_BYTES, 0)
        assert any(data[offset : offset + LOG_BYTES])
        assert not any(data[:offset])
        assert not any(data[offset + LOG_BYTES :])
        assert device_of(block).log_beyond == 0
        block.works()


@kinds
@pytest.mark.parametrize("size", [1, 8, RAM // PAGE // 8])
def test_passt_a_log_too_short_for_what_is_written(kind: str, size: int, log_fd: int) -> None:
    """[HEAD]: counted, and nothing is written behind its end."""
    with Neighbourhood(KINDS[kind] | Feature.LOG_ALL) as block:
        device_of(block).set_log(log_fd, size)
        to_offender(block, 5)
        assert not any(os.pread(log_fd, FILE_BYTES, 0))
        assert device_of(block).log_beyond > 0
        block.works()


@kinds
def test_cve_2019_14835_descriptors_of_no_bytes_while_logging(kind: str, log_fd: int) -> None:
    """[V-gHost]: many of them in each chain, in both directions."""
    with Neighbourhood(KINDS[kind] | Feature.LOG_ALL) as block:
        a = block.offender
        device_of(block).set_log(log_fd, LOG_BYTES)
        gpa = a.ram.alloc(4096)
        a.ring(RX).add([(gpa, 0, True)] * 100 + [(gpa, 2048, True)])
        a.ring(RX).add([(gpa, 1, True), *[(gpa, 0, True)] * 50, (gpa, 2048, True)])
        for length in (64, 65):
            block.partner.transmit(mac(A) + mac(B) + frame(length)[12:])
        block.turns(3)
        assert [size for _, size, _ in a.ring(RX).reap()] == [76, 77]
        a.ram.write(gpa, bytes(12) + frame(64))
        block.partner.post(1)
        a.ring(TX).add([*[(gpa, 0, False)] * 100, (gpa, 76, False)])
        assert len(block.given_back(a.ring(TX), 1)) == 1
        assert block.partner.frames() == [frame(64)]
        assert device_of(block).log_beyond == 0
        block.works()


def test_a_log_that_shrinks_while_it_is_written(log_fd: int) -> None:
    """[SIGBUS]: as when memory goes away."""
    with Neighbourhood(ENOUGH | Feature.LOG_ALL) as block:
        device_of(block).set_log(log_fd, LOG_BYTES)
        to_offender(block, 2)
        os.ftruncate(log_fd, 0)
        block.offender.post(1)
        block.partner.transmit(mac(A) + mac(B) + frame(64)[12:])
        block.turns(3)
        block.expect_gone("memory")
        block.come_back().boot()
        block.works()
