"""Tap interfaces: open or make one, and be a port of the switch."""

import errno
import fcntl
import logging
import os
import socket
import struct
from pathlib import Path

from vswitch import core
from vswitch.errors import Place, UserError

log = logging.getLogger("vsw.tap")

# linux/if_tun.h
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN = 1, 2, 4, 8
TUN_F_USO4, TUN_F_USO6 = 0x20, 0x40
VNET_HDR_BYTES = 12  # struct virtio_net_hdr_mrg_rxbuf
# linux/sockios.h, linux/if.h
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFMTU, IFF_UP = 0x8913, 0x8914, 0x8922, 1


class TapPort:
    """A port of the host's own network stack.  One object, one start(), one close()."""

    def __init__(self, port_id: int, interface: str, mtu_bytes: int, place: Place) -> None:
        """place: the key that names the interface, for errors."""
        self._port_id = port_id
        self._interface = interface
        self._mtu_bytes = mtu_bytes
        self._place = place
        self._port: core.TapPort | None = None

    @property
    def c_port(self) -> object:
        assert self._port is not None
        return self._port.c

    @property
    def c_rxqs(self) -> list[object]:
        return [self._port.rxq()] if self._port else []

    @property
    def numa_node(self) -> int | None:
        return None

    def start(self) -> None:
        """Raises UserError."""
        fd, uso = open_tap(self._interface, self._place)
        try:
            set_up(self._interface, self._mtu_bytes)
            self._port = core.TapPort(self._port_id, fd, uso)
        finally:
            if self._port is None:
                os.close(fd)

    def close(self) -> None:
        """No published snapshot may list the port."""
        if self._port is not None:
            self._port.close()
            self._port = None

    def status(self) -> dict[str, object]:
        return {"interface": self._interface, "state": link_state(self._interface)}


def open_tap(interface: str, place: Place) -> tuple[int, bool]:
    """A non-blocking file descriptor of the tap, made when missing; whether it takes USO frames."""
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        raise UserError(
            f"cannot open /dev/net/tun: {e.strerror}",
            "load the module tun, and give this user access",
            place,
        ) from None
    flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", interface.encode(), flags))
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", VNET_HDR_BYTES))
        uso = set_offloads(fd)
    except OSError as e:
        os.close(fd)
        remedy = {
            errno.EBUSY: "stop the other program that uses it, or choose another interface",
            errno.EPERM: f"run as root, or: ip tuntap add {interface} mode tap vnet_hdr "
            f"user {os.geteuid()}",
        }.get(e.errno or 0, "choose another name, or remove the interface of that name")
        raise UserError(f"cannot attach to {interface}: {e.strerror}", remedy, place) from None
    return fd, uso


def set_offloads(fd: int) -> bool:
    """Everything that the kernel has; whether USO is among it (Linux 6.2 and later)."""
    offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN
    try:
        fcntl.ioctl(fd, TUNSETOFFLOAD, offloads | TUN_F_USO4 | TUN_F_USO6)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        fcntl.ioctl(fd, TUNSETOFFLOAD, offloads)
        return False
    return True


def set_up(interface: str, mtu_bytes: int) -> None:
    """Bring the interface up with the bridge's MTU, as far as we may."""
    name = interface.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
        try:
            fcntl.ioctl(s, SIOCSIFMTU, struct.pack("16si20x", name, mtu_bytes))
            answer = fcntl.ioctl(s, SIOCGIFFLAGS, struct.pack("16sH22x", name, 0))
            (flags,) = struct.unpack("16xH22x", answer)
            fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH22x", name, flags | IFF_UP))
        except PermissionError:
            # A tap that root made for us: it is root's to bring up.
            log.warning(
                "%s: no permission to bring it up; run: ip link set %s up mtu %d",
                interface,
                interface,
                mtu_bytes,
            )


def link_state(interface: str) -> str:
    try:
        flags = int((Path("/sys/class/net") / interface / "flags").read_text(), 16)
    except OSError:
        return "gone"
    return "up" if flags & IFF_UP else "down"
