"""Typed reading of one TOML table: each value is checked once, and errors name its key.

A Table remembers which keys were asked for; close() reports the first one that nobody knows.
"""

import difflib
import ipaddress
from collections.abc import Callable
from string import hexdigits
from typing import Any, NoReturn, TypeVar

from mesh.address import Address
from mesh.errors import ConfigError
from vswitch.errors import Place, UserError
from vswitch.model import Network

T = TypeVar("T")

TYPE_NAMES: dict[type, str] = {
    str: "a string",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    list: "an array",
    dict: "a table",
}


def type_name(value: object) -> str:
    """What the user would call the value's TOML type."""
    return TYPE_NAMES.get(type(value), f"a {type(value).__name__}")


class Table:
    """A TOML table at a key path ("" is the file's top)."""

    def __init__(self, file: str, key: str, values: dict[str, Any]) -> None:
        self._file = file
        self._key = key
        self._values = values
        self._known: list[str] = []

    def place(self, name: str = "") -> Place:
        """Where the key called name stands; "": the table itself."""
        return Place(self._file, ".".join(part for part in (self._key, name) if part))

    def wrong(self, name: str, what: str, remedy: str) -> NoReturn:
        """Raise the error for one key."""
        raise UserError(what, remedy, self.place(name))

    def has(self, name: str) -> bool:
        self._known.append(name)
        return name in self._values

    def names(self) -> list[str]:
        """All keys, for tables whose keys are the user's own names."""
        self._known.extend(self._values)
        return list(self._values)

    def close(self) -> None:
        """Every key was asked for, or the first unknown one is an error."""
        known = dict.fromkeys(self._known)
        for name in self._values:
            if name in known:
                continue
            near = difflib.get_close_matches(name, known, n=1)
            remedy = f'did you mean "{near[0]}"?' if near else f"known keys: {', '.join(known)}"
            self.wrong(name, "unknown key", remedy)

    def _value(self, name: str, wanted: type, required: str) -> Any:
        if not self.has(name):
            if required:
                self.wrong(name, "missing", required)
            return None
        value = self._values[name]
        self._check_size(name, value)
        # TOML's booleans are Python integers, but not the user's.
        if type(value) is not wanted:
            self.wrong(
                name,
                f"{TYPE_NAMES[wanted]} is expected here, not {type_name(value)}",
                f"write {_example(wanted, value, name)}",
            )
        return value

    def _check_size(self, name: str, value: object) -> None:
        """TOML's integers have 64 bits; Python's have as many as it takes to print them."""
        if isinstance(value, int) and value.bit_length() > 63:
            self.wrong(name, "a number of more than 64 bits", "write a smaller one")

    def string(self, name: str, required: str = "") -> str | None:
        """A string that is not empty; None when absent.  required: the remedy when it is."""
        value: str | None = self._value(name, str, required)
        if value is not None and (not value or "\0" in value):
            self.wrong(name, "empty or with a zero byte", "write a value, or leave the key out")
        return value

    def required_string(self, name: str, remedy: str) -> str:
        value = self.string(name, remedy)
        assert value is not None
        return value

    def choice(self, name: str, choices: tuple[str, ...], default: str = "") -> str:
        """One of the strings; default "": required."""
        listed = " or ".join(f'"{choice}"' for choice in choices)
        value = self.string(name, "" if default else f"write one of {listed}")
        if value is None:
            return default
        if value not in choices:
            self.wrong(name, f'unknown value "{value}"', f"write {listed}")
        return value

    def integer(self, name: str, low: int, high: int, default: int) -> int:
        value = self._value(name, int, "")
        if value is None:
            return default
        if not low <= value <= high:
            self.wrong(name, f"{value} is out of range", f"write a number from {low} to {high}")
        return int(value)

    def table(self, name: str) -> "Table | None":
        value = self._value(name, dict, "")
        return None if value is None else Table(self._file, self.place(name).key, value)

    def tables(self, name: str) -> list["Table"]:
        """An array of tables ([[name]]); key paths count from 0."""
        value = self._value(name, list, "")
        for i, item in enumerate(value or []):
            if not isinstance(item, dict):
                self.wrong(
                    f"{name}[{i}]",
                    f"a table is expected here, not {type_name(item)}",
                    f"write each entry under its own [[{self.place(name).key}]]",
                )
        return [
            Table(self._file, self.place(f"{name}[{i}]").key, item)
            for i, item in enumerate(value or [])
        ]

    def array(self, name: str, wanted: type) -> list[Any]:
        """An array of one type; empty when absent."""
        value: list[Any] = self._value(name, list, "") or []
        for i, item in enumerate(value):
            self._check_size(f"{name}[{i}]", item)
            if type(item) is not wanted:
                self.wrong(
                    f"{name}[{i}]",
                    f"{TYPE_NAMES[wanted]} is expected here, not {type_name(item)}",
                    f"write {_example(wanted, item, name)}",
                )
        return value

    def parsed(self, name: str, text: str, parse: Callable[[str], T]) -> T:
        """parse(text); what is wrong with it, is wrong at name."""
        try:
            return parse(text)
        except UserError as e:
            self.wrong(name, e.what, e.remedy)
        except ConfigError as e:
            self.wrong(name, f"{e.where}: {e.what}" if e.where else e.what, e.remedy)

    def optional(self, name: str, parse: Callable[[str], T]) -> T | None:
        """parse() of a string; None when absent."""
        text = self.string(name)
        return None if text is None else self.parsed(name, text, parse)

    def octal(self, name: str, default: int) -> int:
        """Permission bits written as "0660"."""
        mode = self.optional(name, parse_mode)
        return default if mode is None else mode

    def networks(self, name: str) -> tuple[Network, ...]:
        """Address prefixes; without host bits and without duplicates."""
        found: dict[Network, None] = {}  # a set in the user's order
        for i, text in enumerate(self.array(name, str)):
            place = f"{name}[{i}]"
            network = self.parsed(place, text, parse_network)
            if network in found:
                self.wrong(place, f"{network} stands here twice", "remove one of the two")
            found[network] = None
        return tuple(found)


def parse_mode(text: str) -> int:
    """Permission bits from octal digits.  Like all parse functions here, raises UserError."""
    octal = text.isascii() and text.isdecimal() and not set(text) & set("89")
    if not octal or int(text, 8) > 0o777:
        raise UserError(
            f'"{text}" is not a set of permission bits', 'write them in octal digits, like "0660"'
        )
    return int(text, 8)


def parse_network(text: str) -> Network:
    """A prefix; an address alone is a prefix of full length."""
    remedy = "write a prefix like 10.5.0.1/32 or fd00:5::1/128"
    try:
        loose = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise UserError(f'"{text}" is not an address prefix', remedy) from None
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise UserError(
            f'"{text}" has bits set behind its prefix length',
            f"write {loose}, or the address alone",
        ) from None
    address = network.network_address
    single = network.prefixlen == network.max_prefixlen
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        raise UserError(
            f"{network} is an IPv4 address written as IPv6", f"write {address.ipv4_mapped}"
        )
    if (
        address.is_multicast
        or address.is_loopback
        or (
            single
            and (address.is_unspecified or address == ipaddress.IPv4Address("255.255.255.255"))
        )
    ):
        raise UserError(f"{network} is not what one machine can have on a network", remedy)
    return network


def parse_endpoint(text: str) -> Address:
    """A UDP address that one can send to or listen on."""
    address = Address.parse(text)
    if address.ip.is_multicast:
        raise UserError(f"{address.ip} is a group address", "write the address of one machine")
    return address


def parse_mac(text: str) -> bytes:
    """6 bytes of "02:00:00:00:00:01"."""
    remedy = "write one like 02:00:00:00:00:01"
    parts = text.split(":")
    if len(parts) != 6 or not all(len(p) == 2 and set(p) <= set(hexdigits) for p in parts):
        raise UserError(f'"{text}" is not a MAC address', remedy)
    mac = bytes.fromhex("".join(parts))
    if mac[0] & 1 or not any(mac):
        raise UserError(f'"{text}" is not the address of one machine', remedy)
    return mac


def _example(wanted: type, value: object, name: str) -> str:
    """How the user's value would look if it had the right type."""
    if wanted is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return f'{name} = "{value}"'
    if wanted is int and isinstance(value, str) and value.lstrip("-").isdecimal():
        return f"{value} without quotes"
    if wanted is list and isinstance(value, str):
        return f'{name} = ["{value}"]'
    if wanted is dict:
        return f"a table of its own: [… .{name}]"
    return TYPE_NAMES[wanted]
