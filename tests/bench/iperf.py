"""iperf3 and ping between two hosts, and what they say."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from tests.bench.errors import BenchError
from tests.bench.ground import LONGEST_S, Ground
from tests.bench.loop import pause

FIRST_PORT = 5201
RISE_S = 0.3  # after which a flow is at its rate


@dataclass(frozen=True)
class Stream:
    """What arrived: gbits: per second; moved: bytes; again: segments that were sent again.
    cpu_s: CPU time of both its ends."""

    gbits: float
    moved: int
    again: int
    cpu_s: float


def parse(text: str) -> Stream:
    """iperf3's JSON."""
    try:
        report = json.loads(text)
    except ValueError:
        raise BenchError(f"iperf3 says no JSON: {text[-200:]!r}") from None
    if "error" in report:
        raise BenchError(f"iperf3: {report['error']}")
    end = report["end"]
    received, used = end["sum_received"], end["cpu_utilization_percent"]
    return Stream(
        received["bits_per_second"] / 1e9,
        received["bytes"],
        end["sum_sent"].get("retransmits", 0),
        sum(used[side] for side in ("host_total", "remote_total")) / 100 * received["seconds"],
    )


@contextmanager
def serving(ground: Ground, host: int, port: int) -> Iterator[None]:
    """An iperf3 server for one test."""
    words = ground.command(host, "iperf3", "-s", "-1", "-p", str(port), "--forceflush")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        try:
            assert server.stdout is not None
            while b"Server listening" not in (line := server.stdout.readline()):
                if not line:
                    raise BenchError("iperf3's server does not start")
            drain = threading.Thread(target=server.stdout.read)
            drain.start()
            yield
        finally:
            server.kill()
    drain.join()


@dataclass(frozen=True)
class Way:
    """From one host to an address of another."""

    source: int
    sink: int
    address: str


def streams(ground: Ground, ways: Sequence[Way], seconds: float, flows: int = 1) -> list[Stream]:
    """TCP on all ways at once."""
    found: list[Stream | BenchError] = [BenchError("iperf3 was not run") for _ in ways]

    def one(index: int, way: Way) -> None:
        port = FIRST_PORT + index
        words = ["iperf3", "-c", way.address, "-p", str(port), "-t", f"{seconds:g}", "-J"]
        try:
            with serving(ground, way.sink, port):
                words = ground.command(way.source, *words, "-P", str(flows))
                ready.wait(LONGEST_S)
                done = subprocess.run(
                    words, capture_output=True, text=True, timeout=LONGEST_S, check=False
                )
            found[index] = parse(done.stdout)
        except BenchError as error:
            ready.abort()
            found[index] = error
        except threading.BrokenBarrierError:
            pass  # the other one says why
        except subprocess.TimeoutExpired:
            found[index] = BenchError(f"{way.address}: iperf3 does not end")

    ready = threading.Barrier(len(ways))
    threads = [threading.Thread(target=one, args=item) for item in enumerate(ways)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = []
    for stream in found:
        if isinstance(stream, BenchError):
            raise stream
        done.append(stream)
    return done


@contextmanager
def running(ground: Ground, way: Way) -> Iterator[None]:
    """Beside one TCP flow, which is at its rate."""
    words = ["iperf3", "-c", way.address, "-p", str(FIRST_PORT), "-t", str(LONGEST_S)]
    with serving(ground, way.sink, FIRST_PORT):
        flow = subprocess.Popen(
            ground.command(way.source, *words), stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        try:
            pause(RISE_S)
            yield
            if flow.poll() is not None:
                raise BenchError(f"{way.address}: the flow beside it ended")
        finally:
            flow.kill()
            flow.wait()


def parse_ping(text: str) -> list[float]:
    """Round trips in µs."""
    return [float(ms) * 1000 for ms in re.findall(r"time=([0-9.]+) ms", text)]


def ping(ground: Ground, way: Way, seconds: float, gap_s: float = 0.002) -> float:
    """The median round trip in µs."""
    count = max(1, round(seconds / gap_s))
    words = ["ping", "-n", "-c", str(count), "-i", f"{gap_s:g}", "-W", "1", way.address]
    trips = parse_ping(ground.run(way.source, *words))
    if len(trips) < count / 2:
        raise BenchError(f"{way.address}: {len(trips)} of {count} pings were answered")
    return median(trips)


def answers(ground: Ground, way: Way) -> bool:
    """Whether one ping came back within a second."""
    words = ground.command(way.source, "ping", "-n", "-c", "1", "-W", "1", way.address)
    return subprocess.run(words, capture_output=True, check=False).returncode == 0
