"""A process with a session, for those who look into its memory: python -m tests.fakes.keyholder

A line on stdin, the keys in hex and inverted (so that what was read is no copy), gets it two ends
of one session, which exchange packets; another line ends the session.  Each is answered by a line.
"""

import sys

from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

from mesh.core import RELAY_KEY_BYTES
from tests.fakes.meshsides import IPS, PEER, Side, joined, received

INDEX = 0x1000


def keys(line: str, begin: int) -> tuple[bytearray, bytearray, bytearray, bytearray]:
    """begin: 1 for the other end's order."""
    inverted = bytes.fromhex(line)
    parts = [inverted[:32], inverted[32:64], inverted[64:80], inverted[80:]]
    order = [begin, 1 - begin, 2 + begin, 3 - begin]
    made = tuple(bytearray(len(parts[part])) for part in order)
    for key, part in zip(made, order, strict=True):
        for at, byte in enumerate(parts[part]):
            key[at] = 255 - byte
    return made


def install(side: Side, other: Side, line: str, cipher: int) -> tuple[bytearray, ...]:
    """The keys given, which are wiped then."""
    send, receive, relay_send, relay_receive = given = keys(line, side.number)
    assert len(relay_send) == len(relay_receive) == RELAY_KEY_BYTES
    side.core.install_session(
        PEER,
        INDEX,
        INDEX,
        send,
        receive,
        relay_send_key=relay_send,
        relay_receive_key=relay_receive,
        initiator=side.number == 0,
        endpoint=other.at,
        cipher=cipher,
    )
    return given


def main(cipher: int) -> None:
    with joined("127.0.0.1", "127.0.0.1") as sides:
        line = sys.stdin.readline().strip()
        given = [install(side, sides[1 - side.number], line, cipher) for side in sides[::-1]]
        for number in (0, 1, 0):
            packet = IP(src=IPS[number], dst=IPS[1 - number]) / UDP() / Raw(bytes(1000))
            sides[number].send(packet)
            received(sides, sides[1 - number])
        print("installed", flush=True)
        sys.stdin.readline()
        for side in sides:
            side.core.remove_session(INDEX)
        assert not any(any(key) for end in given for key in end)
        print("removed", flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main(int(sys.argv[1]))
