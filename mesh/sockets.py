"""The mesh's UDP sockets: one per worker at the common port, and one per lane at its own."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack, suppress

from mesh.address import Address
from mesh.errors import ConfigError

# linux/udp.h and linux/in.h, in6.h: not in Python's socket module.
UDP_GRO = 104
IP_MTU_DISCOVER = 10
IPV6_MTU_DISCOVER = 23
PMTUDISC_PROBE = 3
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33

# A burst of a worker's sleep at 10 Gbit/s; the kernel grants what net.core.rmem_max allows, or
# all of it to who has CAP_NET_ADMIN.
BUFFER_BYTES = 8 << 20

_REMEDIES = {
    errno.EADDRINUSE: ("is in use", "stop the other program or choose another port"),
    errno.EADDRNOTAVAIL: (
        "is no address of this host",
        'use one that "ip address" shows, or 0.0.0.0 or [::] for all',
    ),
    errno.EACCES: ("may not be used by this user", "choose a port above 1023"),
    errno.EAFNOSUPPORT: ("is of a family that this host lacks", "use an IPv4 address"),
}


def open_sockets(listen: Address, count: int) -> list[socket.socket]:
    """count bound, non-blocking sockets in lane order.  Raises ConfigError."""
    try:
        if count > 1:
            # With SO_REUSEPORT a second daemon of this user would share our port unnoticed.
            _open(listen, shared=False).close()
        with ExitStack() as undo:
            sockets = []
            for _ in range(count):
                sock = undo.enter_context(_open(listen, shared=count > 1))
                if listen.port == 0:
                    listen = Address(listen.ip, sock.getsockname()[1])
                sockets.append(sock)
            undo.pop_all()
            return sockets
    except OSError as error:
        what, remedy = _REMEDIES.get(
            error.errno or 0, (f"cannot be used: {error.strerror}", "choose another address")
        )
        raise ConfigError(f"UDP {listen} {what}", remedy) from None


def open_own_sockets(listen: Address, lanes: int) -> list[socket.socket]:
    """Bound, non-blocking sockets of lanes 1 and up, each at a port that the kernel chooses: nobody
    has to know it, because peers send to the common one.  Raises ConfigError."""
    with ExitStack() as undo:
        try:
            sockets = [
                undo.enter_context(_open(Address(listen.ip, 0), shared=False, gro=False))
                for _ in range(1, lanes)
            ]
        except OSError as error:
            raise ConfigError(
                f"no UDP port for lanes at {listen.ip}: {error.strerror}",
                "let fewer workers run, or raise the limit of open files",
            ) from None
        undo.pop_all()
        return sockets


def _open(listen: Address, *, shared: bool, gro: bool = True) -> socket.socket:
    """gro: takes several datagrams as one message."""
    family = socket.AF_INET if listen.ip.version == 4 else socket.AF_INET6
    with ExitStack() as undo:
        sock = undo.enter_context(
            socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        )
        # Records are never fragmented, and how large a path's may be is found by probes
        # (paths.py): what an ICMP message says of it, which anybody may have sent, counts
        # for nothing.
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
        with suppress(OSError):  # an older kernel then hands over one datagram at a time
            sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, int(gro))
        for force, plain in (
            (SO_SNDBUFFORCE, socket.SO_SNDBUF),
            (SO_RCVBUFFORCE, socket.SO_RCVBUF),
        ):
            try:
                sock.setsockopt(socket.SOL_SOCKET, force, BUFFER_BYTES)
            except PermissionError:
                sock.setsockopt(socket.SOL_SOCKET, plain, BUFFER_BYTES)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((str(listen.ip), listen.port))
        undo.pop_all()
        return sock


def target(sock: socket.socket, address: Address) -> tuple[str, int]:
    """An address as sendto() of this socket takes it."""
    if sock.family == socket.AF_INET6 and address.ip.version == 4:
        return f"::ffff:{address.ip}", address.port
    return str(address.ip), address.port
