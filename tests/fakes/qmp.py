"""QEMU's monitor: commands to a running QEMU, and the events it reports.

guest = QemuGuest(…, arguments=qmp_arguments(path)); with Qmp(path) as qmp: qmp.ask("query-status")
"""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.fakes.closing import Closing
from tests.fakes.daemons import WAIT_S, until


class QmpError(Exception):
    """QEMU refused a command; its words."""


def qmp_arguments(path: Path) -> list[str]:
    """Makes QEMU listen there."""
    return ["-qmp", f"unix:{path},server=on,wait=off"]


def _connected(path: Path) -> socket.socket:
    """QEMU makes its socket some time before it listens."""
    found: list[socket.socket] = []

    def connects() -> bool:
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(WAIT_S)
        try:
            one.connect(str(path))
        except ConnectionRefusedError:
            one.close()
            return False
        found.append(one)
        return True

    until(connects, "QEMU's monitor")
    return found[0]


class Qmp(Closing):
    """One connection; QEMU serves one at a time."""

    def __init__(self, path: Path) -> None:
        self._socket = _connected(path)
        self._lines = self._socket.makefile("r")
        self._events: list[dict[str, Any]] = []
        self._read()  # the greeting
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: object) -> Any:
        """Run a command; "_" in the names of arguments stands for "-".  Raises QmpError."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        request = {"execute": command, "arguments": named}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        while "event" in (message := self._read()):
            self._events.append(message)
        if "error" in message:
            raise QmpError(f"{command}: {message['error']['desc']}")
        return message["return"]

    def event(
        self, name: str, fits: Callable[[dict[str, Any]], bool] = lambda _: True
    ) -> dict[str, Any]:
        """Data of the next event of that name that fits; those before it are forgotten."""
        while True:
            message = self._events.pop(0) if self._events else self._read()
            data: dict[str, Any] = message.get("data", {})
            if message.get("event") == name and fits(data):
                return data

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        line = self._lines.readline()
        assert line, "QEMU closed its monitor"
        return dict(json.loads(line))

    def __enter__(self) -> Self:
        return self
