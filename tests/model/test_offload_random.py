"""Large frames of any shape, cut or passed whole: payload as sent, every header and checksum right.

OFFLOAD_SEED=N repeats a run, OFFLOAD_EXAMPLES=N makes it longer.
"""

import os
from dataclasses import dataclass
from random import SystemRandom

from hypothesis import given, seed, settings
from hypothesis import strategies as st

from tests.fakes.frontend import BASIC, GUEST_OFFLOADS, GUEST_USO, HOST_OFFLOADS, MERGEABLE
from tests.fakes.offloads import ACK, CWR, FIN, PADDING, PSH, TCP, UDP, Flow, receive
from tests.fakes.vhostbox import A, B, VhostBox, mac, pair
from vhost.messages import Feature

SEED = int(os.environ.get("OFFLOAD_SEED") or SystemRandom().randrange(2**32))
SENDER = MERGEABLE | HOST_OFFLOADS | Feature.HOST_USO | Feature.INDIRECT_DESC
RECEIVERS = {
    "nothing": MERGEABLE,
    "csum": MERGEABLE | Feature.GUEST_CSUM,
    "not mergeable": BASIC,
    "legacy": Feature.PROTOCOL_FEATURES,
    "all": MERGEABLE | GUEST_OFFLOADS | GUEST_USO,
}
SEQ = 1000
RING = 256


@dataclass(frozen=True)
class Large:
    """A frame that stands for several."""

    flow: Flow
    payload: bytes
    gso_size: int
    tcp_flags: int
    ident: int

    @property
    def pieces(self) -> list[bytes]:
        size = self.gso_size
        return [self.payload[i : i + size] for i in range(0, len(self.payload), size)]

    def handed_over(self) -> tuple[bytes, bytes]:
        """(frame, virtio-net header)"""
        ecn = self.flow.protocol == TCP and bool(self.tcp_flags & CWR)
        frame = self.flow.frame(self.payload, seq=SEQ, flags=self.tcp_flags, ident=self.ident)
        return frame, self.flow.header(self.gso_size, ecn=ecn) + bytes(2)


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    """Any whose headers fit into a private head of 160 bytes."""
    version = draw(st.sampled_from([4, 6]))
    words, headers = draw(st.integers(0, 10)), draw(st.integers(0, 3))
    return Flow(
        mac(B) + mac(A),
        version,
        draw(st.sampled_from([TCP, UDP])),
        draw(st.booleans()),
        options=b"\1" * 4 * draw(st.integers(0, 10)),
        extra=b"\1" * 4 * words if version == 4 else PADDING * headers,
    )


@st.composite
def large_frames(draw: st.DrawFn) -> Large:
    """At most half a ring of pieces."""
    flow, gso_size = draw(flows()), draw(st.integers(1, 9000))
    longest = min(gso_size * RING // 2, 65535 - flow.headers_bytes)
    length = draw(st.integers(1, longest))
    content = draw(st.binary(min_size=1, max_size=37))
    return Large(
        flow,
        (content * (length // len(content) + 1))[:length],
        gso_size,
        draw(st.sampled_from([ACK, ACK | PSH, ACK | CWR, ACK | FIN | CWR | PSH])),
        draw(st.integers(0, 65535)),
    )


@settings(max_examples=int(os.environ.get("OFFLOAD_EXAMPLES", "150")), deadline=None, database=None)
@seed(SEED)
@given(
    large=large_frames(),
    receiver=st.sampled_from(sorted(RECEIVERS)),
    cuts=st.lists(st.integers(1, 3000), max_size=40),
    indirect=st.booleans(),
)
def cut_or_whole(large: Large, receiver: str, cuts: list[int], indirect: bool) -> None:
    flow, pieces = large.flow, large.pieces
    frame, header = large.handed_over()
    while sum(cuts) >= len(frame) + 12:
        cuts.pop()
    with VhostBox() as box:
        a, b = pair(box, SENDER, RECEIVERS[receiver], ring_size=RING)
        if receiver == "all":
            b.post(34, 2048)
        else:
            b.post(len(pieces), len(pieces[0]) + 200)
        a.transmit(frame, header, pieces=cuts, indirect=indirect)
        box.settle()
        got = receive(flow, SEQ, b.received())
        assert box.drops(0) == box.drops(1) == {}
    assert got.large == (receiver == "all")
    if flow.protocol == TCP:
        flags = [large.tcp_flags & ~(PSH | FIN | CWR)] * (1 if got.large else len(pieces))
        flags[0] |= large.tcp_flags & CWR
        flags[-1] |= large.tcp_flags & (PSH | FIN)
        assert got.tcp_flags == flags
        assert got.stream == large.payload
    else:
        assert got.datagrams == pieces
    assert got.idents == [(large.ident + i) & 0xFFFF for i in range(len(got.idents))]


def test_any_large_frame() -> None:
    print(f"seed: OFFLOAD_SEED={SEED}")
    cut_or_whole()
