"""The control socket: one JSON object per line each way.

Request {"command": NAME}, answer {"ok": true, "result": …} or {"ok": false, "error": TEXT}; where
the user can do something about it, also "remedy": TEXT.  Some commands take more keys, and answer
with any number of lines that have "more": true, and one without; the client ends them by closing.
"""

import asyncio
import contextlib
import grp
import json
import os
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from vswitch.errors import Place, UserError
from vswitch.model import Control

LINE_BYTES_MAX = 64 * 1024
ANSWER_TIMEOUT_S = 10.0

Answer = Callable[[], object]
Stream = Callable[[dict[str, object]], AsyncGenerator[object, None]]


class ControlServer:
    """Answers commands.  Binds when made, answers after serve(), removes its path in close()."""

    def __init__(
        self,
        control: Control,
        place: Place,
        commands: dict[str, Answer],
        streams: dict[str, Stream],
    ) -> None:
        """Raises UserError, at place, when the socket cannot be had.

        streams: commands of many answers; they raise UserError before the first.
        """
        self._path = control.path
        self._commands = commands
        self._streams = streams
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
                    request = parse(line)
                    if request is not None and request.get("command") in self._streams:
                        stream = self._streams[str(request["command"])]
                        await self._stream(reader, writer, stream(request))
                        break
                    await send(writer, self._answer(request))
        finally:
            self._connections.discard(writer)
            writer.close()

    def _answer(self, request: dict[str, object] | None) -> dict[str, object]:
        if request is None:
            return {"ok": False, "error": "the request is no JSON object"}
        name = request.get("command")
        command = self._commands.get(name) if isinstance(name, str) else None
        if command is None:
            known = ", ".join([*self._commands, *self._streams])
            return {"ok": False, "error": f"unknown command {name!r}; known: {known}"}
        return {"ok": True, "result": command()}

    async def _stream(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        rows: AsyncGenerator[object, None],
    ) -> None:
        """Until there are no more rows, or the client closes or says anything."""
        telling = asyncio.ensure_future(tell(writer, rows))
        hearing = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((telling, hearing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            telling.cancel()
            hearing.cancel()
            await asyncio.gather(telling, hearing, return_exceptions=True)

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


def parse(line: bytes) -> dict[str, object] | None:
    """A request; None when it is none."""
    try:
        request = json.loads(line)
    except ValueError:
        return None
    return request if isinstance(request, dict) else None


async def send(writer: asyncio.StreamWriter, answer: dict[str, object]) -> None:
    writer.write(json.dumps(answer).encode() + b"\n")
    await writer.drain()


async def tell(writer: asyncio.StreamWriter, rows: AsyncGenerator[object, None]) -> None:
    async with contextlib.aclosing(rows):
        try:
            async for row in rows:
                await send(writer, {"ok": True, "result": row, "more": True})
        except UserError as e:
            await send(writer, {"ok": False, "error": e.what, "remedy": e.remedy})
        else:
            await send(writer, {"ok": True, "result": None})


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
    with conversation(place) as s:
        s.settimeout(ANSWER_TIMEOUT_S)
        s.connect(path)
        s.sendall(json.dumps({"command": command}).encode() + b"\n")
        with s.makefile("rb") as stream:
            return understand(stream.readline(), place)["result"]


def ask_on(path: str, request: dict[str, object]) -> Iterator[Any]:
    """The daemon's answers to a command that has many.  Raises UserError when there is none, or
    they break off."""
    place = Place(path)
    with conversation(place) as s:
        s.settimeout(ANSWER_TIMEOUT_S)
        s.connect(path)
        s.sendall(json.dumps(request).encode() + b"\n")
        s.settimeout(None)
        with s.makefile("rb") as stream:
            while (answer := understand(stream.readline(), place)).get("more"):
                yield answer["result"]


@contextlib.contextmanager
def conversation(place: Place) -> Iterator[socket.socket]:
    """What goes wrong in it is told as UserError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as s:
        try:
            yield s
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


def understand(line: bytes, place: Place) -> dict[str, Any]:
    """Raises UserError when it is no answer, or says that there is none."""
    if not line:
        raise UserError("the daemon ended the conversation", "look at its log", place)
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or "ok" not in answer:
        raise UserError("what answers there is no vsw daemon", "name its control socket", place)
    if not answer["ok"]:
        remedy = answer.get("remedy", "use the vsw of the daemon's version")
        raise UserError(answer["error"], remedy, place)
    return answer
