"""What mesh/core/handshake.c does to handshake messages before Python sees them, in miniature: no
answers that nobody waits for, and under load no initiation without a cookie."""

from hashlib import blake2b

from mesh import wire
from mesh.cookie import Receiver
from mesh.errors import RemoteError
from mesh.relay import Path, Through
from tests.fakes.cookies import cookie_reply, mac2

EXPECTED_NS = 8_000_000_000  # HANDSHAKE_EXPECTED_S


class Gate:
    """loaded: whether too many initiations come."""

    def __init__(self, public_key: bytes, secret: bytes) -> None:
        self.loaded = False
        self._public_key = public_key
        self._receiver = Receiver(public_key)
        self._secret = secret
        self._expected: dict[int, int] = {}

    def expect(self, data: bytes, now: int) -> None:
        """Before a message of ours is sent."""
        index = wire.initiation_index(data)
        if index is not None:
            self._expected[index] = now + EXPECTED_NS

    def receive(self, data: bytes, source: Path, now: int) -> tuple[bool, bytes | None]:
        """(whether Python sees it, what is answered)."""
        try:
            message = wire.parse(data)
        except RemoteError:
            return True, None  # C drops it too; here Node shows that it does
        if not isinstance(message, wire.Initiation):
            return self._expected.get(message.receiver, -1) >= now, None
        if not self.loaded or isinstance(source, Through) or not self._receiver.mac1_ok(data):
            return True, None
        cookie = blake2b(source.packed(), key=self._secret, digest_size=16).digest()
        if data[-16:] == mac2(cookie, data):
            return True, None
        return False, cookie_reply(message, self._public_key, cookie)
