"""Control queues whose driver lies, one test for each row of docs/hostile.md."""

import pytest

from tests.fakes.neighbourhood import ENOUGH, Neighbourhood
from tests.fakes.ring import DESC, INDIRECT, NEXT, WRITE, Ring
from vhost import messages as m
from vhost.messages import Feature, ProtocolFeature, Request

RAM = 0x1000_0000
OUTSIDE = 0x4000_0000
CONTROL = ENOUGH | Feature.CTRL_VQ | Feature.CTRL_RX | Feature.CTRL_VLAN
CONTROL |= Feature.CTRL_MAC_ADDR | Feature.GUEST_ANNOUNCE | Feature.MQ
ANSWER = (RAM, 1, WRITE, 0)


def with_control(block: Neighbourhood) -> Ring:
    """The offender's third ring is its control queue: it does not speak MQ."""
    front = block.offender
    front.send(Request.SET_PROTOCOL_FEATURES, m.U64.pack(int(ProtocolFeature.REPLY_ACK)))
    front.send(Request.SET_FEATURES, m.U64.pack(CONTROL))
    front.features = CONTROL
    front.start_ring(2)
    ring = front.rings[2]
    front.settle()
    return ring


def breaks(reason: str, *entries: tuple[int, int, int, int], head: int = 0) -> None:
    with Neighbourhood() as block:
        ring = with_control(block)
        for index, entry in enumerate(entries):
            ring.describe(index, *entry)
        ring.offer(head)
        block.expect_broken(2, reason)
        block.works()


CYCLES = {
    "on itself": [(RAM, 4, NEXT, 0)],
    "of two": [(RAM, 2, NEXT, 1), (RAM, 2, NEXT, 0)],
    "back from the answer": [(RAM, 2, NEXT, 1), (RAM, 1, NEXT | WRITE, 1)],
    "of nothing": [(RAM, 0, NEXT, 1), (RAM, 0, NEXT, 0)],
}


@pytest.mark.parametrize("case", CYCLES)
def test_dpdk_6ec1778134_commands_that_loop(case: str) -> None:
    breaks("loop", *CYCLES[case])


@pytest.mark.parametrize("following", [256, 257, 32768, 65535])
def test_dpdk_38e6400387_next_beyond_the_table(following: int) -> None:
    breaks("next_range", (RAM, 4, NEXT, following))


@pytest.mark.parametrize("head", [256, 65535])
def test_dpdk_38e6400387_a_command_beyond_the_table(head: int) -> None:
    breaks("head_range", head=head)


def test_dpdk_7cc4f260bf_an_index_that_runs_over() -> None:
    """65536 commands and some: the index wraps and is masked."""
    with Neighbourhood() as block:
        ring = with_control(block)
        gpa = block.offender.ram.alloc(8)
        block.offender.ram.write(gpa, bytes([0, 0, 1]))
        served = 0
        while served < 65536 + 300:
            for _ in range(101):  # no divisor of the ring
                ring.add([(gpa, 3, False), (gpa + 3, 1, True)])
            assert block.given_back(ring, 101) == [1] * 101
            served += 101
        assert ring.avail_idx == served & 0xFFFF
        block.works()


@pytest.mark.parametrize("jump", [257, 32768, -1])
def test_dpdk_7cc4f260bf_an_index_that_jumps(jump: int) -> None:
    with Neighbourhood() as block:
        ring = with_control(block)
        ring.set_avail_idx(ring.avail_idx + jump)
        block.expect_broken(2, "avail_jump")
        block.works()


@pytest.mark.parametrize("pairs", [0, 2, 128, 129, 257, 0x8000, 0xFFFF])
def test_dpdk_7cc4f260bf_pairs_that_are_not_there(pairs: int) -> None:
    """Queue 257: refused by the command's answer, and nothing changes."""
    with Neighbourhood() as block:
        ring = with_control(block)
        gpa = block.offender.ram.alloc(8)
        block.offender.ram.write(gpa, bytes([4, 0]) + pairs.to_bytes(2, "little") + b"\xff")
        ring.add([(gpa, 4, False), (gpa + 4, 1, True)])
        block.turns(3)
        assert block.offender.ram.read(gpa + 4, 1) == b"\1"
        assert block.ports[0].status()["pairs"] == 1
        block.works()


WRONG = {
    "no room for the answer": ("control_shape", [(RAM, 4, 0, 0)]),
    "an answer of no bytes": ("control_shape", [(RAM, 4, NEXT, 1), (RAM, 0, WRITE, 0)]),
    "answer before command": ("direction", [(RAM, 1, WRITE | NEXT, 1), (RAM, 4, 0, 0)]),
    "answer not in memory": ("address", [(RAM, 4, NEXT, 1), (OUTSIDE, 1, WRITE, 0)]),
    "command not in memory": ("address", [(OUTSIDE, 4, NEXT, 1), ANSWER]),
    "nested table": ("indirect_nested", [(RAM + 8192, 16, INDIRECT, 0)]),
}


@pytest.mark.parametrize("case", WRONG)
def test_dpdk_6ec1778134_commands_of_a_wrong_shape(case: str) -> None:
    reason, entries = WRONG[case]
    with Neighbourhood() as block:
        ring = with_control(block)
        block.offender.ram.write(RAM + 8192, DESC.pack(RAM, 16, INDIRECT, 0))
        for index, entry in enumerate(entries):
            ring.describe(index, *entry)
        ring.offer(0)
        block.expect_broken(2, reason)
        block.works()


@pytest.mark.parametrize("length", [0, 1, 2, 3, 5, 1000, 65536])
def test_commands_of_every_length_and_class(length: int) -> None:
    """Answered, whatever they say."""
    with Neighbourhood() as block:
        ring = with_control(block)
        gpa = block.offender.ram.alloc(length + 16)
        for kind in (0, 1, 2, 3, 4, 5, 255):
            block.offender.ram.write(gpa, bytes([kind, kind, *b"\xff" * 14]))
            ring.add([(gpa, length, False), (gpa + length + 8, 1, True)])
            assert block.given_back(ring, 1) == [1]
            assert block.offender.ram.read(gpa + length + 8, 1) in (b"\0", b"\1")
        block.works()


def test_a_control_queue_that_is_not_negotiated_does_not_start() -> None:
    with Neighbourhood() as block:
        ring = Ring(block.offender.ram, 256)
        block.offender.send(Request.SET_PROTOCOL_FEATURES, m.U64.pack(8))
        block.offender.send(Request.SET_VRING_NUM, m.VRING_STATE.pack(2, 256))
        block.offender.send(Request.SET_VRING_ADDR, block.offender.addresses(2, ring))
        kick = [ring.kick]
        assert block.offender.tell(Request.SET_VRING_KICK, m.U64.pack(2), kick) != 0
        ring.close()
        block.works()
