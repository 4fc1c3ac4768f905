"""Values out of what qperf, mtr and iperf3 print. Pure functions; they raise ToolError."""

import json
import math
import re

from qperf_suite.errors import ToolError

# qperf autoscales in steps of 1000 unless told -uu, and uses powers of two for message sizes.
_NS = {"ns": 1.0, "us": 1e3, "ms": 1e6, "sec": 1e9}
_BYTES = {"bytes/sec": 1.0, "KB/sec": 1e3, "MB/sec": 1e6, "GB/sec": 1e9, "TB/sec": 1e12}
_LINE = re.compile(r"^\s+(\w+)\s+=\s+([\d.,]+)(?:\s+([\w/]+))?.*$")


def qperf_fields(output: str) -> dict[str, tuple[float, str]]:
    """Every "name = value unit" line of one test: name → (value, unit as printed)."""
    fields = {}
    for line in output.splitlines():
        found = _LINE.match(line)
        if found:
            name, number, unit = found.groups()
            try:
                fields[name] = (float(number.replace(",", "")), unit or "")
            except ValueError as error:
                raise ToolError(f"qperf printed {line.strip()!r}") from error
    return fields


def qperf_latency_us(output: str) -> float:
    """One-way latency of tcp_lat or udp_lat in µs: half of a mean round trip."""
    return _qperf(output, "latency", _NS) / 1e3


def qperf_bandwidth_mbytes(output: str) -> float:
    """Bandwidth of tcp_bw in 10^6 bytes per second."""
    return _qperf(output, "bw", _BYTES) / 1e6


def qperf_received_mbytes(output: str) -> float:
    """What udp_bw's receiver counted, in 10^6 bytes per second."""
    return _qperf(output, "recv_bw", _BYTES) / 1e6


def mtr_average_us(output: str) -> float:
    """Mean round trip to the destination in µs, of `mtr --json`."""
    try:
        report = json.loads(output)["report"]
        hub = report["hubs"][-1]
        wanted, reached = str(report["mtr"]["dst"]), str(hub["host"])
        loss, average_ms = float(hub["Loss%"]), float(hub["Avg"])
    except (ValueError, LookupError, TypeError) as error:
        raise ToolError(f"mtr printed no report: {_start(output)}") from error
    if reached != wanted or loss >= 100:
        raise ToolError(f"mtr did not reach {wanted}: last hop {reached}, loss {loss:.0f} %")
    return _positive(average_ms * 1e3, "mtr's average")


def iperf3_gbits(output: str) -> float:
    """What the receiver got, in Gbit/s, of `iperf3 --json` over TCP."""
    try:
        result = json.loads(output)
        if result.get("error"):
            raise ToolError(f"iperf3: {result['error']}")
        rate = float(result["end"]["sum_received"]["bits_per_second"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ToolError(f"iperf3 printed no result: {_start(output)}") from error
    return _positive(rate / 1e9, "iperf3's rate")


def _qperf(output: str, name: str, units: dict[str, float]) -> float:
    fields = qperf_fields(output)
    if name not in fields:
        raise ToolError(f"qperf printed no {name}: {_start(output)}")
    value, unit = fields[name]
    if unit not in units:
        raise ToolError(f"qperf printed {name} in {unit!r}")
    return _positive(value * units[unit], f"qperf's {name}")


def _positive(value: float, what: str) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ToolError(f"{what} is {value}")
    return value


def _start(output: str) -> str:
    return repr(" / ".join(output.split("\n"))[:120])
