"""Handshake messages as Python parses them: changed, cut, spliced, made by a peer that lies, at any
time.

Invariant tested: what is no message of the peer's is refused, counted once, answered by nothing,
and changes nothing; what is one, but for fields that nothing protects, or a lie, is refused at most
once, and has no more bytes sent to its source than came.  A cookie has an initiation repeated,
wherever that went, not where the cookie came from.  Nothing raises.

Seeded; FUZZ_SECONDS=N takes N / 10 times as many steps.
"""

from random import Random

import pytest

from mesh import noise, wire
from mesh.cookie import Sender
from mesh.wire import MAC_BYTES, TYPE_COOKIE, TYPE_INITIATION, TYPE_RECORD, TYPE_RESPONSE
from tests.fakes.cookies import cookie_reply
from tests.fakes.mesh_ends import STRANGER, WALL, End, S, Two
from tests.fuzz.run import SECONDS

SEEDS = range(8)
STEPS = 250 * SECONDS
MACS_BYTES = 2 * MAC_BYTES
# What Noise, or the cookie's cipher, protects.
PROTECTED = {TYPE_INITIATION: (8, 120), TYPE_RESPONSE: (12, 64), TYPE_COOKIE: (8, 64)}
SIZES = {TYPE_INITIATION: 152, TYPE_RESPONSE: 96, TYPE_COOKIE: 64}
LENGTHS = (0, 1, 63, 64, 65, 95, 96, 97, 119, 151, 152, 153, 1500)


def core_of(data: bytes) -> tuple[int, bytes]:
    begin, end = PROTECTED[data[0]]
    return data[0], data[begin:end]


class Fuzz:
    """Two nodes that talk, and somebody in between; sent: by whom, to whom the other is."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.two = Two(b_knows_a=True)
        self.sent: dict[End, list[bytes]] = {self.two.a: [], self.two.b: []}
        self.accepted = self.refused = 0
        self.collect()

    def other(self, end: End) -> End:
        return self.two.b if end is self.two.a else self.two.a

    def collect(self) -> list[tuple[End, bytes]]:
        """(to whom, message)."""
        fresh = [(self.other(e), data) for e in self.sent for data, _ in e.out()]
        for target, data in fresh:
            self.sent[self.other(target)].append(data)
        return fresh

    # ---- what is sent

    def closed(self, message: bytes, target: End) -> bytes:
        """With a right first MAC, as who knows the public key can make it."""
        return Sender(target.identity.public_key).close(message, self.two.now)

    def changed(self, target: End) -> bytes:
        """A message of the other end's, or of nobody's, and what may happen to it."""
        rng = self.rng
        known = [*self.sent[self.other(target)], *self.sent[target], rng.randbytes(152)]
        data = bytearray(rng.choice(known[-20:]))
        for _ in range(rng.randrange(4)):
            match rng.randrange(5):
                case 0 if data:
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                case 1 if data:
                    at = rng.randrange(len(data))
                    data[at : at + rng.randrange(40)] = rng.randbytes(rng.randrange(40))
                case 2:
                    data = data[: rng.choice(LENGTHS)].ljust(rng.choice(LENGTHS), b"\0")
                case 3:
                    other = rng.choice(known)
                    at = rng.randrange(len(other))
                    data[at:] = other[at:]
                case 4 if data:
                    data[0] = rng.randrange(TYPE_RECORD + 2)
        if rng.random() < 0.5 and len(data) >= MACS_BYTES:
            return self.closed(bytes(data[:-MACS_BYTES]), target)
        return bytes(data)

    def cookie(self, target: End) -> bytes:
        """For the last initiation of target's, from who knows it, changed or not."""
        mine = [m for m in self.sent[target] if m[0] == TYPE_INITIATION]
        if not mine:
            return b""
        initiation = wire.parse(mine[-1])
        assert isinstance(initiation, wire.Initiation)
        public_key = self.other(target).identity.public_key
        return cookie_reply(initiation, public_key, self.rng.randbytes(MAC_BYTES))

    def payload(self, right: bytes) -> bytes:
        data = bytearray(right)
        for _ in range(self.rng.randrange(3)):
            data[self.rng.randrange(len(data))] = self.rng.randrange(256)
        return bytes(data)

    def lying_initiation(self, target: End) -> bytes:
        """Authentic, with a payload of its maker's liking."""
        liar = self.other(target).identity
        offer = wire.offer(WALL + self.two.now + self.rng.randrange(10 * S), tuple(wire.Cipher))
        made = noise.Initiator(
            prologue=wire.PROLOGUE,
            static_private=liar.static_private,
            static_public=liar.static_public,
            responder_static=target.identity.static_public,
            static_shared=noise.dh(liar.static_private, target.identity.static_public),
            preshared_key=noise.NO_PRESHARED_KEY,
            ephemeral_private=self.rng.randbytes(32),
            payload=self.payload(offer),
        )
        message = wire.initiation(self.rng.getrandbits(32), made.message)
        return self.closed(message, target)

    def lying_response(self, target: End) -> bytes:
        mine = [m for m in self.sent[target] if m[0] == TYPE_INITIATION]
        if not mine:
            return b""
        initiation = wire.parse(mine[-1])
        assert isinstance(initiation, wire.Initiation)
        liar = self.other(target).identity
        responder = noise.Responder(
            prologue=wire.PROLOGUE,
            static_private=liar.static_private,
            static_public=liar.static_public,
            message=initiation.noise,
        )
        responder.read_payload(noise.dh(liar.static_private, target.identity.static_public))
        body, _ = responder.write_response(
            ephemeral_private=self.rng.randbytes(32),
            preshared_key=noise.NO_PRESHARED_KEY,
            payload=self.payload(wire.choice(wire.Cipher.AES_256_GCM)),
        )
        message = wire.response(self.rng.getrandbits(32), initiation.sender, body)
        return self.closed(message, target)

    # ---- steps

    def step(self) -> None:
        rng, two = self.rng, self.two
        target = rng.choice([two.a, two.b])
        chance = rng.random()
        if chance < 0.05:
            two.wait(rng.choice([0.01, 1, 6, 60]))
            self.collect()
        elif chance < 0.15:
            for end, data in self.collect():
                if rng.random() < 0.7:
                    end.node.receive_datagram(data, self.other(end).address, two.now)
            two.confirm()
        elif chance < 0.9:
            self.receive(target, self.changed(target), lie=False)
        else:
            make = rng.choice([self.lying_initiation, self.lying_response, self.cookie])
            self.receive(target, make(target), lie=True)

    def look(self, end: End) -> tuple[object, ...]:
        node = end.node
        return end.state, node.session_indexes(), node.next_timer(), node.status(self.two.now)

    def receive(self, target: End, data: bytes, *, lie: bool) -> None:
        self.collect()
        target.events()
        before, refused = self.look(target), target.node.refused.total()
        source = self.rng.choice([STRANGER, self.other(target).address])
        target.node.receive_datagram(data, source, self.two.now)
        out, events = target.out(), target.events()
        refused = target.node.refused.total() - refused
        self.sent[target] += [message for message, _ in out]
        self.refused += refused
        self.accepted += not refused
        if lie or self.is_genuine(target, data):
            assert refused <= 1
            if data[:1] == bytes([TYPE_COOKIE]):
                assert [message[:136] for message, _ in out] in ([], [self.sent[target][-1][:136]])
            else:
                assert sum(len(message) for message, to in out if to == STRANGER) <= len(data)
        else:
            assert (refused, out, events) == (1, [], [])
            assert self.look(target) == before

    def is_genuine(self, target: End, data: bytes) -> bool:
        """Whether all that is protected is as the other end once made it for target."""
        if not data or len(data) != SIZES.get(data[0]):
            return False
        return any(core_of(data) == core_of(known) for known in self.sent[self.other(target)])


@pytest.mark.parametrize("seed", SEEDS)
def test_messages_of_strangers_and_liars(seed):
    fuzz = Fuzz(seed)
    for _ in range(STEPS):
        fuzz.step()
    assert fuzz.accepted > STEPS / 100
    assert fuzz.refused > STEPS / 2
    reached = {refusal for end in fuzz.sent for refusal in end.node.refused}
    print(f"{fuzz.accepted} accepted, refused: {sorted(refusal.value for refusal in reached)}")
