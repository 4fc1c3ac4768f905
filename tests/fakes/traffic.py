"""Traffic between two guests whose every byte is looked at."""

from collections.abc import Iterable

from qperf_suite.guests import Guest
from tests.fakes.daemons import until

ECHO_PORT = 99


def echo(client: Guest, server: Guest, address: str, *, mib: int, streams: int = 1) -> None:
    """Random bytes over TCP, at once in so many connections, come back as they were sent."""
    listening = f"netstat -ltn | grep -q :{ECHO_PORT}"
    if not server.run(listening).ok:
        server.spawn(f"nc -ll -p {ECHO_PORT} -e /bin/cat")
        until(lambda: server.run(listening).ok, "the echo server")
    client.check(f"dd if=/dev/urandom of=/tmp/data bs=1M count={mib}")
    for number in range(streams):
        client.check(f"nc {address} {ECHO_PORT} < /tmp/data > /tmp/echo{number} &")
    client.check("while pidof nc >/dev/null; do sleep 0.05; done", timeout_s=60)
    for number in range(streams):
        client.check(f"cmp /tmp/data /tmp/echo{number} && rm /tmp/echo{number}")


def ping_sizes(client: Guest, address: str, sizes: Iterable[int]) -> None:
    """One request of each size (bytes of payload), whose answer says the same."""
    numbers = " ".join(map(str, sizes))
    said = client.check(
        f"for n in {numbers}; do ping -q -c 1 -W 5 -p 5ac3 -s $n {address} || exit 1; done",
        timeout_s=60,
    )
    assert "wrong data" not in said, said
