"""Hosts as network namespaces of this machine, with links, bridges, taps and NAT between them.

Names of namespaces carry the process id; everything vanishes with its namespace.
"""

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from pyroute2 import IPRoute, NetlinkError, netns

from qperf_suite.errors import TopologyError, UsageError
from qperf_suite.leftovers import PREFIX

# linux/if_tun.h
TUNSETIFF, TUNSETPERSIST = 0x400454CA, 0x400454CB
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000


class Topology:
    """Makes namespaces and what is in them; leaving it as a context removes them all.

    Namespaces are called by their short names here, and by `full_name` outside.  Links are up
    as soon as they exist.  Every method raises TopologyError.
    """

    def __init__(self, prefix: str = PREFIX) -> None:
        if os.geteuid() != 0:
            raise UsageError("network namespaces need root: run this as root")
        self._prefix = f"{prefix}{os.getpid()}"
        self._namespaces: dict[str, IPRoute] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def full_name(self, namespace: str) -> str:
        """What `ip netns` calls the namespace."""
        return f"{self._prefix}-{namespace}"

    def namespace(self, name: str) -> None:
        """Make a namespace with loopback up, without IPv6 (its chatter would be measured)."""
        full = self.full_name(name)
        with _told(f"namespace {full}"):
            netns.create(full)
            self._namespaces[name] = IPRoute(netns=full)
            self._up(name, "lo")
            with self.entered(name):
                for scope in ("default", "all"):
                    path = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
                    if path.exists():
                        path.write_text("1")

    def veth(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        """Join two namespaces by a pair of links, each end given as (namespace, link)."""
        with _told(f"veth {one[1]}–{other[1]}"):
            self._namespaces[one[0]].link(
                "add",
                kind="veth",
                ifname=one[1],
                peer={"ifname": other[1], "net_ns_fd": self.full_name(other[0])},
            )
            self._up(*one)
            self._up(*other)

    def bridge(self, namespace: str, name: str) -> None:
        """Make a kernel bridge."""
        with _told(f"bridge {name}"):
            self._namespaces[namespace].link("add", kind="bridge", ifname=name)
            self._up(namespace, name)

    def tap(self, namespace: str, name: str) -> None:
        """Make a tap device with virtio-net headers, for one process to open later."""
        request = struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
        with _told(f"tap {name}"), self.entered(namespace):
            tun = os.open("/dev/net/tun", os.O_RDWR)
            try:
                fcntl.ioctl(tun, TUNSETIFF, request)
                fcntl.ioctl(tun, TUNSETPERSIST, 1)
            finally:
                os.close(tun)
            self._up(namespace, name)

    def enslave(self, namespace: str, link: str, bridge: str) -> None:
        """Make a link a port of a bridge."""
        with _told(f"{link} in {bridge}"):
            master = self._index(namespace, bridge)
            self._namespaces[namespace].link(
                "set", index=self._index(namespace, link), master=master
            )

    def address(self, namespace: str, link: str, address: str) -> None:
        """Give a link an address, "10.5.0.1/24"."""
        host, _, length = address.partition("/")
        with _told(f"{address} on {link}"):
            self._namespaces[namespace].addr(
                "add", index=self._index(namespace, link), address=host, prefixlen=int(length)
            )

    def forward(self, namespace: str) -> None:
        """Let the namespace route IPv4."""
        with _told("ip_forward"), self.entered(namespace):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def nft(self, namespace: str, rules: str) -> None:
        """Load nftables rules, in the language of nft(8)."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.full_name(namespace), "nft", "-f", "-"],
            input=rules,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise TopologyError(f"nft refused the rules: {done.stderr.strip()}")

    @contextmanager
    def entered(self, namespace: str) -> Iterator[None]:
        """Run the block's system calls, in this thread, inside the namespace."""
        netns.pushns(self.full_name(namespace))
        try:
            yield
        finally:
            netns.popns()

    def close(self) -> None:
        """Remove every namespace made here. Safe to call twice.

        One that cannot be removed does not keep the others; the last error is raised at the end.
        """
        failed: TopologyError | None = None
        while self._namespaces:
            name, sockets = self._namespaces.popitem()
            try:
                with _told(f"removal of {self.full_name(name)}"):
                    sockets.close()
                    netns.remove(self.full_name(name))
            except TopologyError as error:
                failed = error
        if failed is not None:
            raise failed

    def _index(self, namespace: str, link: str) -> int:
        found = self._namespaces[namespace].link_lookup(ifname=link)
        if not found:
            raise TopologyError(f"no link {link} in {self.full_name(namespace)}")
        return int(found[0])

    def _up(self, namespace: str, link: str) -> None:
        index = self._index(namespace, link)
        self._namespaces[namespace].link("set", index=index, state="up")


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn the kernel's refusals into TopologyError."""
    try:
        yield
    except (NetlinkError, OSError) as error:
        raise TopologyError(f"cannot make {what}: {error}") from error
