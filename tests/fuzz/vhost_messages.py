"""A front-end that says anything in any order, to the real backend and its C, rings running.

Invariant tested: whatever comes, nothing is raised but what ends that one connection; its partner
and the neighbours lose nothing, open files and mappings return to where they were, and a
front-end that behaves can connect and work afterwards (tests/fakes/neighbourhood.py).

    python -m tests.fuzz.vhost_messages [--seconds N] [--count N] [--seed S]

One sequence is one connection, of messages, of bytes in ring memory and of traffic between them.
Each has a seed of its own; a failing one is printed and can be run again by itself with --count 1.
"""

import argparse
import contextlib
import faulthandler
import logging
import os
import random
import socket
import time
from collections.abc import Callable

import _dataplane

from tests.fakes.neighbourhood import ENOUGH, Neighbourhood
from tests.fakes.ram import Ram
from tests.fakes.ring import DESC, Ring
from tests.fakes.vhostbox import frame, mac
from vhost import messages as m
from vhost.messages import Feature, ProtocolFeature, Request

STUCK_S = 60
RAM = 0x1000_0000
RAM_BYTES = 1 << 20
EDGES = [0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x101, 0xFFF, 0x1000, 0x7FFF, 0x8000, 0xFFFF]
EDGES += [0x10000, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 4096, 2**64 - 1]
LAST_REQUEST = 46
KINDS_OF_FD = ["counter", "memory", "short", "pipe in", "pipe out", "socket", "/dev/null"]
KINDS_OF_FD += ["/dev/zero", "directory", "path", "full counter", "log"]
TO_ALL = b"\xff" * 6 + mac("02:00:00:00:00:0b") + b"\x88\xb5" + bytes(200)


class Sequence:
    """One connection's life; all it does follows from seed."""

    def __init__(self, block: Neighbourhood, seed: int) -> None:
        self.block = block
        self.random = random.Random(seed)
        self.messages = 0
        self.fds: list[int] = []
        self.to_all = block.partner.ram.alloc(12 + len(TO_ALL))
        block.partner.ram.write(self.to_all, bytes(12) + TO_ALL)
        self.front = block.offender
        self.features = int(ENOUGH)
        self.steps: list[tuple[int, Callable[[], None]]] = [
            (30, self.well_formed),
            (15, self.malformed),
            (10, self.start_ring),
            (12, self.traffic),
            (8, self.garbage_in_memory),
            (6, self.garbage_in_ring),
            (8, self.block.pump),
            (4, self.part_of_a_message),
            (2, self.share_memory),
            (1, self.shrink),
        ]

    def run(self) -> None:
        """Until the connection ends or all is said."""
        draw = self.random
        try:
            if draw.random() < 0.8:
                self.begin()
            for _ in range(draw.randrange(5, 60)):
                weights, steps = zip(*self.steps, strict=True)
                draw.choices(steps, weights)[0]()
                self.read_answers()
                if draw.random() < 0.3:
                    self.block.turn()
            self.block.turns(3)
        except (BrokenPipeError, ConnectionResetError):
            return  # the backend had enough
        finally:
            for fd in self.fds:
                os.close(fd)

    def begin(self) -> None:
        """As an honest front-end would, as far as memory."""
        draw = self.random
        for bit in (Feature.EVENT_IDX, Feature.INDIRECT_DESC, Feature.CTRL_VQ, Feature.CSUM):
            if draw.random() < 0.5:
                self.features ^= bit
        if draw.random() < 0.5:
            self.features = int(m.OFFERED_FEATURES) & (draw.getrandbits(64) | 1 << 32 | 1 << 30)
        protocol = int(m.OFFERED_PROTOCOL_FEATURES)
        if draw.random() < 0.5:
            protocol &= draw.getrandbits(20) | ProtocolFeature.REPLY_ACK
        self.say(Request.SET_PROTOCOL_FEATURES, m.U64.pack(protocol))
        self.say(Request.SET_FEATURES, m.U64.pack(self.features))
        self.share_memory()
        for index in range(draw.choice([0, 2, 2, 2, 3, 4])):
            self.ring(index)

    # ---- the socket

    def say(self, request: int, payload: bytes = b"", fds: tuple[int, ...] = ()) -> None:
        flags = m.VERSION | (m.FLAG_NEED_REPLY if self.random.random() < 0.5 else 0)
        self.messages += 1
        with contextlib.suppress(BlockingIOError):
            self.front.send(request, payload, fds, flags)
        if self.random.random() < 0.7:
            self.block.serve_sockets()

    def read_answers(self) -> None:
        assert self.front.sock is not None
        with contextlib.suppress(BlockingIOError):
            while self.front.sock.recv(65536):
                pass

    def fd(self) -> int:
        """A descriptor of any kind, open until the sequence ends."""
        kind = self.random.choice(KINDS_OF_FD)
        if kind == "counter":
            made = [
                os.eventfd(self.random.choice([0, 1]), self.random.choice([0, os.EFD_NONBLOCK]))
            ]
        elif kind == "full counter":
            made = [os.eventfd(0, os.EFD_NONBLOCK)]
            os.eventfd_write(made[0], 2**64 - 2)
        elif kind in ("memory", "short", "log"):
            made = [os.memfd_create("ram0")]
            os.ftruncate(made[0], {"memory": RAM_BYTES, "short": 4096, "log": 1 << 18}[kind])
        elif kind.startswith("pipe"):
            made = list(os.pipe())[:: 1 if kind == "pipe in" else -1]
        elif kind == "socket":
            made = [end.detach() for end in socket.socketpair()]
        elif kind == "directory":
            made = [os.open("/", os.O_RDONLY)]
        elif kind == "path":
            made = [os.open("/dev/null", os.O_PATH)]
        else:
            made = [os.open(kind, os.O_RDWR)]
        self.fds += made
        return made[0]

    # ---- numbers

    def number(self) -> int:
        draw = self.random
        return draw.choice([draw.choice(EDGES), draw.getrandbits(16), draw.getrandbits(64)])

    def index(self) -> int:
        """Of a ring, mostly one that exists."""
        if self.random.random() < 0.8:
            return self.random.randrange(4)
        return self.number() & 0xFFFFFFFF

    def address(self) -> int:
        """The front-end's own, mostly one in its memory."""
        draw = self.random
        if draw.random() < 0.8:
            return self.front.ram.user(RAM + draw.randrange(RAM_BYTES) // 16 * 16)
        return self.number()

    def ring_fd(self) -> tuple[bytes, tuple[int, ...]]:
        index = self.index()
        fds = () if index & m.VRING_NO_FD else (self.fd(),)
        return m.U64.pack(index if self.random.random() < 0.9 else self.number()), fds

    def region(self) -> bytes:
        draw = self.random
        if draw.random() < 0.5:
            start = draw.randrange(16) * 4096
            size = draw.choice([4096, 65536, RAM_BYTES])
            return m.MEMORY_REGION.pack(RAM + start, size, self.front.ram.user(RAM) + start, start)
        return m.MEMORY_REGION.pack(*(self.number() for _ in range(4)))

    # ---- steps

    def share_memory(self) -> None:
        self.messages += 1
        with contextlib.suppress(BlockingIOError):
            self.front.share_memory()

    def ring(self, index: int) -> None:
        """Sets up and starts one, with most of what that takes."""
        front, draw = self.front, self.random
        if index not in front.rings:
            front.rings[index] = Ring(front.ram, draw.choice([1, 2, 4, 16, 16, 256]))
        ring = front.rings[index]
        state = m.VRING_STATE.pack
        ring_of = m.U64.pack(index)
        for request, payload, fds in (
            (Request.SET_VRING_NUM, state(index, ring.num), ()),
            (Request.SET_VRING_BASE, state(index, draw.choice([0, 0, 0x8000])), ()),
            (Request.SET_VRING_ADDR, front.addresses(index, ring), ()),
            (Request.SET_VRING_CALL, ring_of, (ring.call,)),
            (Request.SET_VRING_ERR, ring_of, (ring.error,)),
            (Request.SET_VRING_KICK, ring_of, (ring.kick,)),
            (Request.SET_VRING_ENABLE, state(index, 1), ()),
        ):
            if draw.random() < 0.97:
                self.say(request, payload, fds)

    def start_ring(self) -> None:
        index = self.random.randrange(4)
        if self.random.random() < 0.7:
            self.say(Request.GET_VRING_BASE, m.VRING_STATE.pack(index, 0))
        if self.random.random() < 0.3 and index in self.front.rings:
            self.front.rings.pop(index).close()
        self.ring(index)

    def well_formed(self) -> None:
        """A message of the right shape, its numbers anything."""
        draw, state = self.random, m.VRING_STATE.pack
        request = draw.randrange(1, LAST_REQUEST)
        payload = b""
        fds: tuple[int, ...] = ()
        if request in (Request.SET_VRING_NUM, Request.SET_VRING_BASE, Request.GET_VRING_BASE):
            payload = state(self.index(), draw.choice([2, 16, 256, self.number() & 0xFFFFFFFF]))
        elif request == Request.SET_VRING_ENABLE:
            payload = state(self.index(), draw.choice([0, 1, 1, 2]))
        elif request == Request.SET_VRING_ADDR:
            flags = draw.choice([0, 1, self.number() & 0xFFFFFFFF])
            addresses = [self.address() for _ in range(3)]
            payload = m.VRING_ADDR.pack(self.index(), flags, *addresses, self.number())
        elif request in (Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR):
            payload, fds = self.ring_fd()
        elif request == Request.SET_MEM_TABLE:
            count = draw.choice([1, 1, 2, 8])
            payload = m.MEMORY_HEADER.pack(count, 0) + b"".join(self.region() for _ in range(count))
            fds = tuple(self.fd() for _ in range(count))
        elif request in (37, 38):  # ADD_MEM_REG, REM_MEM_REG
            payload = bytes(8) + self.region()
            fds = (self.fd(),) if request == 37 or draw.random() < 0.3 else ()
        elif request == 6:  # SET_LOG_BASE
            payload = m.VRING_STATE.pack(0, 0)[:0] + m.U64.pack(draw.choice([4096, self.number()]))
            payload += m.U64.pack(draw.choice([0, self.number()]))
            fds = (self.fd(),)
        elif request in (7, Request.SET_BACKEND_REQ_FD):
            fds = (self.fd(),)
        elif request == 42:  # SET_DEVICE_STATE_FD
            payload, fds = state(draw.randrange(3), draw.randrange(2)), (self.fd(),)
        elif request in (Request.GET_CONFIG, Request.SET_CONFIG):
            size = draw.choice([0, 1, 12, 60, 244, 256])
            payload = m.CONFIG_HEADER.pack(
                draw.choice([0, 6, 12, self.number() & 0xFFFFFFFF]), size, 0
            )
            payload += draw.randbytes(size)
        elif request in (Request.SET_FEATURES, Request.SET_PROTOCOL_FEATURES):
            offered = m.OFFERED_FEATURES if request == 2 else m.OFFERED_PROTOCOL_FEATURES
            payload = m.U64.pack(int(offered) & draw.getrandbits(64))
        elif draw.random() < 0.7:
            payload = m.U64.pack(self.number())
        self.say(request, payload, fds)

    def malformed(self) -> None:
        """Lengths, descriptors and flags that do not belong together."""
        draw = self.random
        request = draw.choice([draw.randrange(LAST_REQUEST), self.number() & 0xFFFFFFFF])
        payload = draw.randbytes(draw.choice([0, 1, 7, 8, 9, 12, 40, 100, 4096]))
        fds = [self.fd() for _ in range(draw.choice([0, 0, 1, 2, 8, 9, 20]))]
        flags = draw.choice([m.VERSION] * 6 + [9, 9, 0, 5, draw.getrandbits(32)])
        self.messages += 1
        with contextlib.suppress(BlockingIOError):
            self.front.send(request, payload, fds, flags)

    def part_of_a_message(self) -> None:
        """In pieces, with life between them; now and then the rest never comes."""
        assert self.front.sock is not None
        payload = m.VRING_STATE.pack(self.index(), 1)
        message = m.HEADER.pack(Request.SET_VRING_ENABLE, m.VERSION, 8) + payload
        cut = self.random.randrange(1, len(message))
        self.messages += 1
        with contextlib.suppress(BlockingIOError):
            fds = [self.fd()] if self.random.random() < 0.2 else []
            socket.send_fds(self.front.sock, [message[:cut]], fds)
            self.block.pump()
            if self.random.random() < 0.9:
                self.front.sock.send(message[cut:])

    def traffic(self) -> None:
        """What a driver does, and what its partner says to everybody."""
        front, draw = self.front, self.random
        gpa = RAM + RAM_BYTES // 2 + draw.randrange(1000)
        front.ram.write(gpa, bytes(12) + frame(draw.choice([14, 64, 1000])))
        for index, ring in front.rings.items():
            if not ring.free:
                ring.free = list(range(ring.num))  # as a driver that lost its memory
            writable = index % 2 == 0
            ring.add([(gpa, draw.choice([20, 76, 1500, 70000]), writable)])
            with contextlib.suppress(BlockingIOError):
                os.eventfd_write(ring.kick, 1)
        self.speak_as_partner()
        self.block.turn()

    def speak_as_partner(self) -> None:
        """A frame of the partner's for everybody."""
        ring = self.block.partner.rings[1]
        if not ring.free:
            ring.reap()
        if ring.free:
            ring.add([(self.to_all, 12 + len(TO_ALL), False)])
            os.eventfd_write(ring.kick, 1)

    def garbage_in_memory(self) -> None:
        ram, draw = self.front.ram, self.random
        for _ in range(draw.randrange(1, 6)):
            ram.write(RAM + draw.randrange(32768), draw.randbytes(draw.choice([1, 2, 8, 16])))

    def garbage_in_ring(self) -> None:
        """Descriptors near the truth, an index anywhere."""
        draw = self.random
        for ring in self.front.rings.values():
            at = draw.randrange(ring.num)
            gpa = draw.choice([RAM, RAM + RAM_BYTES - 10, RAM + draw.randrange(RAM_BYTES)])
            entry = DESC.pack(
                gpa, self.number() & 0xFFFFFFFF, draw.getrandbits(3), draw.randrange(20)
            )
            self.front.ram.write(ring.desc + 16 * at, entry)
            if draw.random() < 0.2:
                ring.set_avail_idx(self.number() & 0xFFFF)
            else:
                ring.offer(draw.choice([at, self.number() & 0xFFFF]))

    def shrink(self) -> None:
        """From now on only messages: what is gone must not be touched by us either."""
        os.ftruncate(self.front.ram.regions[0].fd, self.random.choice([0, 4096, RAM_BYTES // 2]))
        self.block.turn()
        self.steps = [(4, self.well_formed), (2, self.malformed), (2, self.block.pump)]


def run_one(seed: int) -> int:
    """Raises what should not have been raised; returns how many messages were sent."""
    with Neighbourhood(None) as block:
        block.offender.ram.close()
        block.offender.ram = Ram([(RAM, RAM_BYTES)])
        sequence = Sequence(block, seed)
        sequence.run()
        block.come_back().boot()
        sequence.speak_as_partner()  # whose address the offender may have used as its own
        block.turns(3)
        block.works()
        return sequence.messages


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--count", type=int, default=2**63)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    options = parser.parse_args()
    print(f"seed={options.seed} data plane: {_dataplane.__file__}", flush=True)
    logging.disable()
    deadline = time.monotonic() + options.seconds
    sequences = messages = 0
    while sequences < options.count and time.monotonic() < deadline:
        seed = options.seed + sequences
        faulthandler.dump_traceback_later(STUCK_S, exit=True)
        try:
            messages += run_one(seed)
        except BaseException:
            print(f"reproduce: python -m tests.fuzz.vhost_messages --count 1 --seed {seed}")
            raise
        sequences += 1
    faulthandler.cancel_dump_traceback_later()
    print(f"{sequences} sequences, {messages} messages")


if __name__ == "__main__":
    main()
