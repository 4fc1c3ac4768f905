"""A TCP connection between two real guests that is never to break, and each byte of it known."""

from pathlib import Path

from qperf_suite.guests import Guest
from tests.fakes.daemons import until

PORT = 99
CHUNK_BYTES = 16384
CHUNKS = 64
PACE_US = 10_000


class TcpStream:
    """Random data from one guest through another and back, paced, until finish()."""

    def __init__(self, peer: Guest, server: Guest, address: str) -> None:
        """server: is at address, echoes, and may move meanwhile."""
        self._peer = peer
        server.spawn(f"nc -l -p {PORT} -e /bin/cat")
        until(lambda: server.run(f"netstat -ltn | grep -q :{PORT}").status == 0, "the echo server")
        peer.check(f"dd if=/dev/urandom of=/tmp/data bs={CHUNK_BYTES} count={CHUNKS}")
        peer.check("rm -f /tmp/enough /tmp/back; mkfifo /tmp/fork")
        peer.check("md5sum < /tmp/fork > /tmp/there &")
        peer.check(
            f"(while [ ! -e /tmp/enough ]; do i=0; while [ $i -lt {CHUNKS} ]; do "
            f"dd if=/tmp/data bs={CHUNK_BYTES} skip=$i count=1 2>/dev/null; "
            f"i=$((i+1)); usleep {PACE_US}; done; done) | tee /tmp/fork | "
            f"nc {address} {PORT} | (md5sum > /tmp/sum; mv /tmp/sum /tmp/back) &"
        )

    def _received_bytes(self) -> int:
        name = self._peer.interfaces[0]
        return int(self._peer.check(f"cat {Path('/sys/class/net') / name}/statistics/rx_bytes"))

    def goes_on(self) -> None:
        """Wait for a good deal more of it."""
        before = self._received_bytes()
        until(
            lambda: self._received_bytes() > before + CHUNKS * CHUNK_BYTES // 4,
            "the connection going on",
        )

    def finish(self) -> None:
        """End it; raises when what came back is not what was sent."""
        self._peer.check("touch /tmp/enough")
        until(lambda: self._peer.run("test -e /tmp/back").ok, "the connection's end")
        there, back = (
            self._peer.check(f"cat /tmp/{name}").split()[0] for name in ("there", "back")
        )
        assert there == back
        self._peer.check("rm /tmp/fork")
