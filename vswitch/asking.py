"""The control socket's commands whose answers come bit by bit: pings and traces."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from functools import partial

from mesh.address import Address
from mesh.core import MTU_MAX_BYTES
from mesh.errors import ConfigError
from mesh.identity import encode_key
from mesh.inquiries import Inquiries, Tell
from mesh.inquiry import Hop, Ponged, Result, WayEnd
from mesh.ping import INTERVAL_MIN_NS
from mesh.relay import Path, Through
from mesh.trace import REACHED
from vswitch.errors import UserError
from vswitch.state import AttachedMesh
from vswitch.switch import Switch
from vswitch.targets import find_peer

SIZE_MIN_BYTES = 16  # struct probe
SIZE_BYTES = 64
INTERVAL_S = 1.0
INTERVAL_MAX_S = 3600.0
COUNT_MAX = 1_000_000_000
_NS_PER_S = 1_000_000_000
_NS_PER_MS = 1_000_000

Request = dict[str, object]
Row = dict[str, object]


class Asking:
    """Of one daemon.  Each command yields rows: first whom it is about, then results."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch

    async def ping(self, request: Request) -> AsyncGenerator[Row, None]:
        """Raises UserError, before the first row."""
        count = request.get("count")
        begin = partial(
            Inquiries.ping,
            count=None if count is None else int(number(request, "count", 1, COUNT_MAX)),
            interval_ns=int(
                number(
                    request, "interval_s", INTERVAL_MIN_NS / _NS_PER_S, INTERVAL_MAX_S, INTERVAL_S
                )
                * _NS_PER_S
            ),
            ip_bytes=int(number(request, "size", SIZE_MIN_BYTES, MTU_MAX_BYTES, SIZE_BYTES)),
        )
        async for row in self._rows(request, begin):
            yield row

    async def trace(self, request: Request) -> AsyncGenerator[Row, None]:
        """Raises UserError, before the first row."""
        async for row in self._rows(request, Inquiries.trace):
            yield row

    async def _rows(
        self, request: Request, begin: Callable[[Inquiries, bytes, Tell], int]
    ) -> AsyncGenerator[Row, None]:
        target = request.get("target")
        if not isinstance(target, str):
            raise UserError("the request names no target", 'add "target"')
        peer = find_peer(self._switch.state.config, target)
        mesh = self._mesh()
        results: asyncio.Queue[Result | None] = asyncio.Queue()
        try:
            stop = mesh.plug.inquire(
                lambda inquiries: begin(inquiries, peer.public_key, results.put_nowait)
            )
        except ConfigError as error:
            raise UserError(error.what, error.remedy) from None
        try:
            yield {"target": target, "public_key": encode_key(peer.public_key)}
            while (result := await results.get()) is not None:
                yield as_row(result, self._names(mesh))
        finally:
            stop()

    def _mesh(self) -> AttachedMesh:
        mesh = self._switch.state.mesh
        if mesh is None:
            raise UserError("the mesh is not started", "look at the daemon's log")
        return mesh

    def _names(self, mesh: AttachedMesh) -> dict[int, str]:
        return {number: encode_key(key) for key, number in mesh.plug.peer_ids.items()}


def number(
    request: Request, key: str, least: float, most: float, default: float | None = None
) -> float:
    """Raises UserError."""
    value = request.get(key, default)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise UserError(f"{key} is {value}, not from {least:g} to {most:g}", f"correct {key}")


def as_row(result: Result, names: dict[int, str]) -> Row:
    match result:
        case Ponged():
            return {
                "seq": result.number,
                "bytes": result.ip_bytes,
                "rtt_ms": milliseconds(result.rtt_ns),
                **place(result.path, names),
                "lost": result.lost,
            }
        case Hop():
            return {
                "hop": result.number,
                "public_key": key_text(result.public_key),
                "rtt_ms": milliseconds(result.rtt_ns),
                "proved": result.proved,
            }
        case WayEnd():
            return {
                "end": result.reason,
                "reached": result.reason == REACHED,
                "at": key_text(result.public_key),
            }


def place(path: Path | None, names: dict[int, str]) -> Row:
    return {
        "endpoint": str(path) if isinstance(path, Address) else None,
        "via": names.get(path.peer) if isinstance(path, Through) else None,
    }


def milliseconds(time_ns: int | None) -> float | None:
    return None if time_ns is None else round(time_ns / _NS_PER_MS, 3)


def key_text(key: bytes | None) -> str | None:
    return None if key is None else encode_key(key)
