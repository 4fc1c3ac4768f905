"""Two guests with rings of any kind and size: what was sent, arrives, in order, once.

Hypothesis prints what reproduces a failure.
"""

from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fakes.frontend import BASIC, MERGEABLE, FrontEnd
from tests.fakes.ram import Ram
from tests.fakes.vhostbox import A, B, VhostBox, frame, mac
from vhost.messages import Feature

KINDS = [0, Feature.RING_PACKED, Feature.IN_ORDER, Feature.RING_PACKED | Feature.IN_ORDER]
RAM = [(0x1000_0000, 24 << 20)]


@dataclass(frozen=True)
class Setup:
    """Kinds and sizes of both guests' rings, and what both negotiate."""

    sender: int
    receiver: int
    sender_size: int
    receiver_size: int
    mergeable: bool
    indirect: bool
    event_idx: bool

    @property
    def features(self) -> int:
        chosen = MERGEABLE if self.mergeable else BASIC
        chosen |= Feature.INDIRECT_DESC if self.indirect else 0
        return chosen | (Feature.EVENT_IDX if self.event_idx else 0)

    @property
    def buffer_bytes(self) -> int:
        """Small ones only where several of them are there to be merged."""
        return 400 if self.mergeable and self.receiver_size >= 8 else 1600


@dataclass
class Guest:
    """A front-end that does not ask more of its rings than they hold."""

    front: FrontEnd
    indirect: bool

    def has_room(self, index: int, pieces: int) -> bool:
        ring = self.front.ring(index)
        held = sum(
            len(slots) if isinstance(slots, list) else slots for slots, _ in ring.chains.values()
        )
        return held + (1 if self.indirect else pieces) <= ring.num

    def post(self, size: int, pieces: int) -> bool:
        if not self.has_room(0, pieces):
            return False
        self.front.post(1, size, pieces=pieces, indirect=self.indirect)
        return True

    def transmit(self, data: bytes, pieces: int) -> bool:
        if not self.has_room(1, pieces):
            return False
        self.front.transmit(data, pieces=[3, 5, 7][: pieces - 1], indirect=self.indirect)
        return True


def boot(box: VhostBox, number: int, setup: Setup, kind: int, size: int) -> Guest:
    if not kind & Feature.RING_PACKED:
        size = 1 << (size.bit_length() - 1)
    front = box.front(number, Ram(RAM), size)
    front.boot(setup.features | kind)
    return Guest(front, setup.indirect)


setups = st.builds(
    Setup,
    sender=st.sampled_from(KINDS),
    receiver=st.sampled_from(KINDS),
    sender_size=st.sampled_from([1, 2, 3, 5, 8, 64, 97]),
    receiver_size=st.sampled_from([1, 2, 3, 5, 8, 64, 97]),
    mergeable=st.booleans(),
    indirect=st.booleans(),
    event_idx=st.booleans(),
)
plans = st.lists(
    st.tuples(
        st.sampled_from(["post", "send", "send", "breathe"]),
        st.integers(1, 4),
        st.sampled_from([14, 60, 200, 1500]),
    ),
    max_size=100,
)


@settings(max_examples=100, deadline=None)
@given(setups, plans)
@example(
    Setup(KINDS[1], KINDS[3], 1, 1, mergeable=True, indirect=False, event_idx=True),
    [("post", 1, 60), ("send", 1, 60), ("breathe", 1, 60)] * 20,
)
def test_what_is_sent_arrives_in_order_and_once(
    setup: Setup, plan: list[tuple[str, int, int]]
) -> None:
    sent: list[bytes] = []
    got: list[bytes] = []
    with VhostBox() as box:
        a = boot(box, 0, setup, setup.sender, setup.sender_size)
        b = boot(box, 1, setup, setup.receiver, setup.receiver_size)
        b.transmit(mac(A) + mac(B) + b"\x88\xb5" + bytes(46), 1)
        box.settle()
        for number, (what, pieces, length) in enumerate(plan):
            data = frame(length, number)
            if what == "post":
                b.post(setup.buffer_bytes, pieces)
            elif what == "send" and a.transmit(data, pieces):
                sent.append(data)
            elif what == "breathe":
                box.breathe(1)
            a.front.ring(1).reap()
            got += b.front.frames()
            assert got == sent[: len(got)]
        for _ in range(2 * len(plan) + 1):
            while b.post(setup.buffer_bytes, 1):
                pass
            box.settle()
            a.front.ring(1).reap()
            got += b.front.frames()
        assert got == sent
        assert box.drops(1) == {}
        assert not a.front.ring(1).chains, "all came back"
