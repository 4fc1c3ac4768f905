"""UDP addresses: an IP address and a port, IPv4-mapped IPv6 always as IPv4."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from mesh.errors import ConfigError

_FORM = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<v4>[^:\[\]]*)):(?P<port>[0-9]{1,5})", re.ASCII)
_REMEDY = 'write "192.0.2.1:7400" or "[2001:db8::1]:7400"'


@dataclass(frozen=True, slots=True)
class Address:
    """Where a UDP socket is.  Equal however an IPv4 address was spelt."""

    ip: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        return f"{self.ip}:{self.port}" if self.ip.version == 4 else f"[{self.ip}]:{self.port}"

    def packed(self) -> bytes:
        """16 bytes, IPv4 as ::ffff:a.b.c.d."""
        if isinstance(self.ip, IPv6Address):
            return self.ip.packed
        return b"\0" * 10 + b"\xff\xff" + self.ip.packed

    @staticmethod
    def from_packed(ip: bytes, port: int) -> Address:
        """ip: 16 bytes, IPv4 as ::ffff:a.b.c.d."""
        v6 = IPv6Address(ip)
        return Address(v6.ipv4_mapped or v6, port)

    @staticmethod
    def parse(text: str, where: str = "") -> Address:
        """Read "a.b.c.d:port" or "[v6]:port".  Raises ConfigError; names are not resolved."""
        form = _FORM.fullmatch(text)
        if form is None:
            raise ConfigError(f"{text!r} is not an address and a port", _REMEDY, where)
        host = form["v6"] if form["v6"] is not None else form["v4"]
        try:
            ip = ip_address(host)
        except ValueError:
            raise ConfigError(
                f"{host!r} is not an IP address",
                f"names are not resolved: {_REMEDY}",
                where,
            ) from None
        if (ip.version == 6) != (form["v6"] is not None):
            raise ConfigError(f"{text!r} has its brackets wrong", _REMEDY, where)
        if isinstance(ip, IPv6Address):
            if ip.scope_id is not None:
                raise ConfigError(
                    f"{host!r} names an interface",
                    "use an address that means the same on every interface",
                    where,
                )
            ip = ip.ipv4_mapped or ip
        port = int(form["port"])
        if not 1 <= port <= 65535:
            raise ConfigError(f"port {port} does not exist", "use 1 to 65535", where)
        return Address(ip, port)
