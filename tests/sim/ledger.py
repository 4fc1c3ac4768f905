"""What ever happened to keys and records in the whole network, and what must never happen.

Knows nothing of Node and Plane but what they did: each method is told of one step as it is taken,
and asserts.
"""

from mesh.events import InstallKeypair
from mesh.node import Node
from mesh.peer import REJECT_AFTER_NS
from tests.sim.plane import Plane, Record, Relayed

GONE = -1  # in place of an index that a restart has forgotten


class Ledger:
    """answered: how often a host installed keys as responder; completed: how many of these then
    proved that the other one has them too."""

    def __init__(self) -> None:
        self.answered = 0
        self.completed = 0
        # (send key, receive key) -> (host, local index, remote index, cipher)
        self._keys: dict[tuple[bytes, bytes], tuple[int, int, int, int]] = {}
        self._indexes: set[tuple[int, int]] = set()
        self._sealed: dict[bytes, int] = {}  # key -> last counter
        self._opened: set[tuple[bytes, int]] = set()
        # Ephemeral keys of initiations, by host: answered, by our index; and confirmed.
        self._initiations: dict[tuple[int, int], bytes] = {}
        self._bound: set[tuple[int, bytes]] = set()

    def restarted(self, number: int) -> None:
        for pair in [pair for pair, (owner, *_) in self._keys.items() if owner == number]:
            self._keys[pair] = (number, GONE, GONE, self._keys[pair][3])
        self._initiations = {k: v for k, v in self._initiations.items() if k[0] != number}
        self._bound = {entry for entry in self._bound if entry[0] != number}

    def installing(self, number: int, peer: int, event: InstallKeypair) -> None:
        """number, peer: of hosts."""
        assert event.send_key != event.receive_key
        assert (number, event.local_index) not in self._indexes, "a local index came back"
        self._indexes.add((number, event.local_index))
        pair = (event.send_key, event.receive_key)
        assert pair not in self._keys, "keys were installed twice"
        self._keys[pair] = (number, event.local_index, event.remote_index, event.cipher)
        mirror = self._keys.get((event.receive_key, event.send_key))
        if event.initiator:
            assert mirror is not None, "the responder does not have these keys"
            owner, local, remote, cipher = mirror
            assert owner == peer
            assert local in (event.remote_index, GONE)
            assert remote in (event.local_index, GONE)
            assert cipher == event.cipher
        else:
            assert mirror is None, "the initiator had these keys before it was answered"
            self.answered += 1

    def answering(self, number: int, index: int, ephemeral: bytes) -> None:
        """An initiation whose keys were used is never answered again."""
        assert (number, ephemeral) not in self._bound, "a replay was answered"
        self._initiations[number, index] = ephemeral

    def sealed(self, record: Record | Relayed, *, confirmed: bool) -> None:
        assert confirmed, "sealed with a key that the peer has not confirmed"
        assert record.counter > self._sealed.get(record.key, -1), "a counter was used twice"
        self._sealed[record.key] = record.counter

    def opened(self, record: Record | Relayed) -> None:
        assert record.counter <= self._sealed.get(record.key, -1), "nobody sealed that"
        assert (record.key, record.counter) not in self._opened, "a record was accepted twice"
        self._opened.add((record.key, record.counter))

    def confirming(self, number: int, peer: int, keys: InstallKeypair) -> None:
        mirror = self._keys.get((keys.receive_key, keys.send_key))
        assert mirror is not None, "confirmed by a record that nobody can have sealed"
        assert mirror[0] == peer
        self._bound.add((number, self._initiations[number, keys.local_index]))
        self.completed += 1


def check_host(node: Node, plane: Plane, now: int) -> None:
    """At rest.  now: on the host's clock."""
    assert sorted(node.session_indexes()) == sorted(plane.sessions), "node and data plane differ"
    for status in node.status(now):
        assert len(status.sessions) <= 3
        for session in status.sessions:
            assert now <= session.created + REJECT_AFTER_NS, "a key outlived its time"
