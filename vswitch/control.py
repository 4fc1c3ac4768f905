"""The control socket: one JSON object per line each way.

Request {"command": NAME}, answer {"ok": true, "result": …} or {"ok": false, "error": TEXT}.
"""

import asyncio
import contextlib
import grp
import json
import os
import socket
from collections.abc import Callable
from typing import Any

from vswitch.errors import Place, UserError
from vswitch.model import Control

LINE_BYTES_MAX = 64 * 1024
ANSWER_TIMEOUT_S = 10.0

Answer = Callable[[], object]


class ControlServer:
    """Answers commands.  Binds when made, answers after serve(), removes its path in close()."""

    def __init__(self, control: Control, place: Place, commands: dict[str, Answer]) -> None:
        """Raises UserError, at place, when the socket cannot be had."""
        self._path = control.path
        self._commands = commands
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._socket = bind(control, place)
        self._inode = os.stat(self._path).st_ino

    async def serve(self) -> None:
        self._server = await asyncio.start_unix_server(
            self._converse, sock=self._socket, limit=LINE_BYTES_MAX
        )

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            # A client that goes away, or sends no lines, ends only its own conversation.
            with contextlib.suppress(ConnectionError, ValueError):
                while line := await reader.readline():
                    writer.write(json.dumps(self._answer(line)).encode() + b"\n")
                    await writer.drain()
        finally:
            self._connections.discard(writer)
            writer.close()

    def _answer(self, line: bytes) -> dict[str, object]:
        try:
            request = json.loads(line)
        except ValueError:
            return {"ok": False, "error": "the request is not JSON"}
        name = request.get("command") if isinstance(request, dict) else None
        command = self._commands.get(name) if isinstance(name, str) else None
        if command is None:
            known = ", ".join(self._commands)
            return {"ok": False, "error": f"unknown command {name!r}; known: {known}"}
        return {"ok": True, "result": command()}

    def close(self) -> None:
        for writer in self._connections:
            writer.close()
        if self._server is not None:
            self._server.close()
        else:
            self._socket.close()
        with contextlib.suppress(OSError):
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)


def bind(control: Control, place: Place) -> socket.socket:
    """A listening socket with the wanted owner and mode; a dead daemon's is replaced."""
    path = control.path
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        remove_stale(path, place)
        # Nobody may connect before mode and group are right.
        before = os.umask(0o177)
        try:
            s.bind(path)
        finally:
            os.umask(before)
        permit(control)
        s.listen(16)
    except OSError as e:
        s.close()
        raise UserError(
            f"cannot make the control socket {path}: {e.strerror}",
            "choose another path, or correct the permissions",
            place,
        ) from None
    except UserError:
        s.close()
        raise
    return s


def permit(control: Control) -> None:
    """Give the socket its group and mode.  Raises OSError."""
    gid = os.getegid() if control.group is None else grp.getgrnam(control.group).gr_gid
    os.chown(control.path, -1, gid)
    os.chmod(control.path, control.mode)


def remove_stale(path: str, place: Place) -> None:
    """Remove a socket that nobody listens on any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise UserError(
        f"another daemon answers at {path}",
        "stop that one (vsw status tells which), or choose another path",
        place,
    )


def ask(path: str, command: str) -> Any:
    """A running daemon's answer.  Raises UserError when there is none."""
    place = Place(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as s:
        s.settimeout(ANSWER_TIMEOUT_S)
        try:
            s.connect(path)
            s.sendall(json.dumps({"command": command}).encode() + b"\n")
            with s.makefile("rb") as stream:
                line = stream.readline()
        except (FileNotFoundError, ConnectionRefusedError):
            raise UserError(
                "no daemon answers at this control socket",
                "start one with vsw run FILE, or name its socket with --control or VSW_CONTROL",
                place,
            ) from None
        except TimeoutError:
            raise UserError(
                f"the daemon gave no answer within {ANSWER_TIMEOUT_S:.0f} s",
                "look at its log",
                place,
            ) from None
        except OSError as e:
            raise UserError(
                f"cannot talk to the daemon: {e.strerror or e}",
                "name a control socket that this user may use",
                place,
            ) from None
    try:
        answer = json.loads(line)
    except ValueError:
        raise UserError(
            "what answers there is no vsw daemon", "name its control socket", place
        ) from None
    if not answer["ok"]:
        raise UserError(answer["error"], "use the vsw of the daemon's version", place)
    return answer["result"]
