"""Values out of what qperf, mtr, iperf3 and pingpong print. Pure functions.

What is not whole raises TruncatedOutputError, what the tool does not print GarbledOutputError, and
what it says about its own failure ToolRefusedError: a wrong number is worse than none.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from qperf_suite.errors import GarbledOutputError, ToolError, ToolRefusedError, TruncatedOutputError

# qperf autoscales in steps of 1000 unless told -uu, and prints bits with -ub.
_NS = {"ns": 1.0, "us": 1e3, "ms": 1e6, "sec": 1e9}
_STEPS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BYTES = {f"{step}B/sec": factor for step, factor in _STEPS.items() if step}
_BYTES |= {f"{step}b/sec": factor / 8 for step, factor in _STEPS.items() if step}
_BYTES |= {"bytes/sec": 1.0, "bits/sec": 1 / 8}
# Message sizes are powers of two, "64 KiB (65,536)", unless -uu makes them plain.
_SIZE = {"bytes": 1.0}
_SIZE |= {f"{step}iB": 1024.0**power for power, step in enumerate("KMG", start=1)}

_HEADER = re.compile(r"(\w+):")
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]?\d+)?"
_FIELD = re.compile(rf"    (\w+) += +({_NUMBER})(?: ([A-Za-z/%]+(?: cpus)?))?(?: \(([\d,]+)\))? *")
_MTR_HOP = re.compile(r" *(\d+)\.\|-- +(\S+) +([\d.]+)% +(\d+) +" + r" +".join([r"([\d.]+)"] * 5))
PINGPONG_TIMES = ("min_us", "p50_us", "p90_us", "p99_us", "p99.9_us", "max_us")
_MTR_HEADS = ("Start:", "HOST:")


@dataclass(frozen=True)
class Reading:
    """What a tool measured. value: in the unit of the test; details: what else it told."""

    value: float
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """Datagrams that were sent at a rate. unread: nothing is known of them, which came last.

    buffer_bytes: the kernel's default for sockets.
    """

    sent: int
    received: int
    unread: int
    buffer_bytes: int


@dataclass(frozen=True)
class Block:
    """What qperf says about one test: name → (value, unit as printed, "" for a count)."""

    test: str
    fields: Mapping[str, tuple[float, str]]


def qperf_blocks(output: str) -> list[Block]:
    """Every test in what qperf printed, in order; more than one with -oo or several tests."""
    if not output.strip():
        raise TruncatedOutputError("qperf printed nothing")
    blocks: list[Block] = []
    fields: dict[str, tuple[float, str]] = {}
    for line in output.splitlines():
        header, found = _HEADER.fullmatch(line), _FIELD.fullmatch(line)
        if header:
            fields = {}
            blocks.append(Block(header[1], fields))
        elif found and blocks:
            name, number, unit, exact = found.groups()
            if name in fields:
                raise GarbledOutputError(f"qperf printed {name} twice: {_start(output)}")
            value = float((exact or number).replace(",", ""))
            fields[name] = (value, "bytes" if exact else unit or "")
        elif line.startswith("    ") and not output.endswith("\n"):
            raise TruncatedOutputError(f"qperf's last line is not whole: {line.strip()!r}")
        elif line.startswith("    "):
            raise GarbledOutputError(f"qperf printed {line.strip()!r}")
        elif line.strip():
            raise ToolRefusedError(f"qperf: {line.strip()[:200]}")
    return blocks


def qperf(test: str, output: str) -> Reading:
    """The only block of a test: µs one way, or 10^6 bytes per second that arrived.

    details: msg_size_bytes when it was printed (-vu), loss_percent of udp_bw.
    """
    blocks = qperf_blocks(output)
    if [block.test for block in blocks] != [test]:
        names = ", ".join(block.test for block in blocks)
        raise GarbledOutputError(f"qperf printed {names or 'no test'} instead of {test}")
    fields = blocks[0].fields
    details = {}
    if "msg_size" in fields:
        details["msg_size_bytes"] = _scaled(fields, "msg_size", _SIZE)
    if test.endswith("_lat"):
        return Reading(_positive(_scaled(fields, "latency", _NS) / 1e3, "qperf's latency"), details)
    if test == "udp_bw":
        sent, received = (_scaled(fields, name, _BYTES) for name in ("send_bw", "recv_bw"))
        _positive(received, "qperf's recv_bw")
        details["loss_percent"] = max(0.0, 100 * (1 - received / _positive(sent, "send_bw")))
        return Reading(received / 1e6, details)
    return Reading(_positive(_scaled(fields, "bw", _BYTES) / 1e6, "qperf's bw"), details)


def mtr(output: str) -> Reading:
    """Mean round trip to the destination in µs, of `mtr --json`, or of a report in steps of 100."""
    return _mtr_json(output) if output.lstrip().startswith("{") else _mtr_report(output)


def iperf3(output: str) -> Reading:
    """What the receiver got, in Gbit/s, of `iperf3 --json`. details: retransmits or loss."""
    result = _iperf3_json(output)
    details = {}
    with _shaped("iperf3", output):
        end = result["end"]
        rate = _number(end["sum_received"]["bits_per_second"])
        if "retransmits" in end["sum_sent"]:
            details["retransmits"] = _number(end["sum_sent"]["retransmits"])
        if "lost_percent" in end["sum_received"]:
            details["loss_percent"] = _number(end["sum_received"]["lost_percent"])
        details["seconds"] = _positive(_number(end["sum_received"]["seconds"]), "iperf3's time")
    return Reading(_positive(rate / 1e9, "iperf3's rate"), details)


def iperf3_udp(output: str, size_bytes: int) -> Trial:
    """How the datagrams of `iperf3 --udp --json` fared, told by both of its sides."""
    result = _iperf3_json(output)
    with _shaped("iperf3", output):
        start, end = result["start"], result["end"]
        if start["test_start"]["blksize"] != size_bytes:
            raise GarbledOutputError(f"iperf3 did not send {size_bytes} B: {_start(output)}")
        sent = int(_number(end["sum_sent"]["packets"]))
        # The receiver counts bytes, and numbers up to the last that it saw.
        received, rest = divmod(int(_number(end["sum_received"]["bytes"])), size_bytes)
        seen = int(_number(end["sum_received"]["packets"]))
        buffer_bytes = int(_number(start["rcvbuf_actual"]))
    if rest or not 0 <= received <= seen <= sent or sent == 0:
        raise GarbledOutputError(f"iperf3 sent {sent}, saw {seen}, received {received} datagrams")
    return Trial(sent, received, sent - seen, buffer_bytes)


def pingpong(output: str) -> Reading:
    """Median round trip in µs of pingpong.c. details: the other percentiles, and loss."""
    result = _json("pingpong", output)
    with _shaped("pingpong", output):
        fields = {name: _number(value) for name, value in result["pingpong"].items()}
        count, lost = fields["count"], fields["lost"]
        if count == 0:
            raise ToolRefusedError(f"pingpong: no answers to {lost:.0f} datagrams")
        times = [fields[name] for name in PINGPONG_TIMES]
        if times != sorted(times):
            raise GarbledOutputError(f"pingpong's percentiles do not grow: {_start(output)}")
        details = {"msg_size_bytes": fields["bytes"], "loss_percent": 100 * lost / (count + lost)}
        details |= dict(zip(PINGPONG_TIMES, times, strict=True))
    return Reading(_positive(fields["p50_us"], "pingpong's median"), details)


def _iperf3_json(output: str) -> Any:
    result = _json("iperf3", output)
    if isinstance(result, dict) and result.get("error"):
        raise ToolRefusedError(f"iperf3: {str(result['error'])[:200]}")
    return result


def _mtr_json(output: str) -> Reading:
    result = _json("mtr", output)
    with _shaped("mtr", output):
        report = result["report"]
        wanted = str(report["mtr"]["dst"])
        if not report["hubs"]:
            raise ToolRefusedError(f"mtr did not reach {wanted}: nobody answered")
        hub = report["hubs"][-1]
        names = {"loss_percent": "Loss%", "sent": "Snt", "best_ms": "Best", "worst_ms": "Wrst"}
        details = {name: _number(hub[key]) for name, key in names.items()}
        return _mtr_reading(wanted, str(hub["host"]), _number(hub["Avg"]), details)


def _mtr_report(output: str) -> Reading:
    lines = output.splitlines()
    if not output.strip():
        raise TruncatedOutputError("mtr printed nothing")
    if not lines[0].startswith(_MTR_HEADS):
        raise ToolRefusedError(f"mtr: {_start(output)}")
    hops = [line for line in lines if not line.startswith(_MTR_HEADS)]
    if not any(line.startswith("HOST:") for line in lines) or not output.endswith("\n"):
        raise TruncatedOutputError(f"mtr's report is not whole: {_start(output)}")
    if not hops:
        raise ToolRefusedError("mtr: nobody answered")
    found = _MTR_HOP.fullmatch(hops[-1].rstrip())
    if not found:
        raise GarbledOutputError(f"mtr printed {hops[-1].strip()!r}")
    _, host, loss, sent, _, average, best, worst, _ = found.groups()
    with _shaped("mtr", output):
        texts = {"loss_percent": loss, "sent": sent, "best_ms": best, "worst_ms": worst}
        details = {name: float(text) for name, text in texts.items()}
        return _mtr_reading(host, host, float(average), details)


def _mtr_reading(
    wanted: str, reached: str, average_ms: float, details: Mapping[str, float]
) -> Reading:
    loss = details["loss_percent"]
    if reached != wanted or loss >= 100:
        raise ToolRefusedError(f"mtr did not reach {wanted}: last hop {reached}, loss {loss:.0f} %")
    if loss < 0 or not details["best_ms"] <= average_ms <= details["worst_ms"]:
        raise GarbledOutputError(f"mtr's average {average_ms} ms is outside of its extremes")
    return Reading(_positive(average_ms * 1e3, "mtr's average"), details)


def _scaled(fields: Mapping[str, tuple[float, str]], name: str, units: dict[str, float]) -> float:
    if name not in fields:
        raise TruncatedOutputError(f"qperf printed no {name}")
    value, unit = fields[name]
    if unit not in units:
        raise GarbledOutputError(f"qperf printed {name} in {unit!r}")
    return value * units[unit]


def _json(tool: str, output: str) -> Any:
    if not output.strip():
        raise TruncatedOutputError(f"{tool} printed nothing")
    try:
        return json.loads(output)
    except ValueError as error:
        kind: Callable[[str], ToolError] = GarbledOutputError
        if not output.lstrip().startswith(("{", "[")):
            kind = ToolRefusedError
        elif not output.rstrip().endswith("}") or output.count("{") > output.count("}"):
            kind = TruncatedOutputError
        raise kind(f"{tool} printed no JSON: {_start(output)}") from error


@contextmanager
def _shaped(tool: str, output: str) -> Iterator[None]:
    """Turn what a foreign structure lacks into GarbledOutputError."""
    try:
        yield
    except (ValueError, LookupError, TypeError) as error:
        raise GarbledOutputError(f"{tool} printed no result: {_start(output)}") from error


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    if not math.isfinite(value):
        raise ValueError
    return float(value)


def _positive(value: float, what: str) -> float:
    if not (math.isfinite(value) and value > 0):
        raise GarbledOutputError(f"{what} is {value:g}")
    return value


def _start(output: str) -> str:
    return repr(" / ".join(output.split("\n"))[:120])
