"""Hosts in a row, each with a switch and a tap; far ones are reached through those in between.

      netns a             netns b             netns c
    vsw0 10.5.0.1       vsw0 10.5.0.2       vsw0 10.5.0.3
      |                   |                   |
    vsw run --- wire0 --- vsw run --- wire1 --- vsw run

Between the wires nothing is routed: only the mesh of b knows both ends.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from mesh.identity import Identity
from mesh.noise import dh
from tests.fakes import memory
from tests.fakes.configs import public, write_key
from tests.fakes.daemons import Daemon, until
from tests.fakes.netns import Host as Namespace
from tests.fakes.netns import add_netns, sh
from tests.fakes.wiretap import MARKER, UNDERLAY, WireTap

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("iperf3") is None,
    reason="needs root for network namespaces, and iperf3",
)

PORT = 7400
SEEDS = [bytes([number]) * 32 for number in (1, 2, 3, 4)]
TCP_S = 4


def address(wire: int, end: int) -> str:
    """end: 0 the left one, 1 the right one."""
    return f"192.0.2.{4 * wire + 1 + end}"


def direct_address(number: int) -> str:
    return f"198.51.100.{number + 1}"


def next_on_the_way(number: int, other: int) -> int:
    return number + 1 if other > number else number - 1


Way = Callable[[int, int], int | None]


def config(number: int, count: int, way: Way, *, direct: bool = False) -> str:
    """way: from one to another, who is next; None: only the other can begin.  direct: the ends have
    each other's endpoints as well."""
    text = f"""\
control = "control.sock"
[bridges.br0]
subnets = ["10.5.0.0/24"]
[bridges.br0.ports.host]
type = "tap"
interface = "vsw0"
addresses = ["10.5.0.{number + 1}/32"]
[mesh]
listen = "0.0.0.0:{PORT}"
private_key_file = "own.key"
"""
    for other in range(count):
        if other == number:
            continue
        hop = way(number, other)
        if hop is None:
            path = ""
        elif hop == other:
            end = 1 if other > number else 0
            path = f'endpoints = ["{address(min(number, other), end)}:{PORT}"]'
        else:
            path = f'via = "{public(SEEDS[hop])}"'
        if direct and {number, other} == {0, count - 1}:
            path += f'\nendpoints = ["{direct_address(other)}:{PORT}"]'
        text += f"""\
[[mesh.peers]]
public_key = "{public(SEEDS[other])}"
addresses = ["10.5.0.{other + 1}/32"]
{path}
"""
    return text


class Host(Namespace):
    def ping(self, number: int, *options: str) -> bool:
        """Whether one packet came back within a second."""
        words = ["ip", "netns", "exec", self.netns, "ping", "-c", "1", "-W", "1", *options]
        words.append(f"10.5.0.{number + 1}")
        result = subprocess.run(words, capture_output=True, timeout=20, check=False)
        return result.returncode == 0

    def peer(self, number: int) -> dict:
        key = public(SEEDS[number])
        return next(p for p in self.daemon.ask("mesh", "peers") if p["public_key"] == key)


@contextmanager
def row(
    tmp_path: Path,
    count: int,
    way: Way = next_on_the_way,
    *,
    tapped: bool = True,
    direct: bool = False,
) -> Iterator[list[Host]]:
    """tapped: all that is on the wires is looked at, to the end.  direct: a wire between the ends,
    called so."""
    names = [f"via{number}x{os.getpid()}" for number in range(count)]
    with ExitStack() as stack:
        for netns in names:
            add_netns(stack, netns)
        for wire in range(count - 1):
            left, right = names[wire : wire + 2]
            sh(f"ip link add wire{wire} netns {left} type veth peer name wire{wire} netns {right}")
            for end, netns in enumerate((left, right)):
                sh(f"ip -n {netns} address add {address(wire, end)}/30 dev wire{wire}")
                sh(f"ip -n {netns} link set wire{wire} up")
        if direct:
            ends = {0: names[0], count - 1: names[-1]}
            sh(f"ip link add direct netns {names[0]} type veth peer name direct netns {names[-1]}")
            for number, netns in ends.items():
                sh(f"ip -n {netns} address add {direct_address(number)}/24 dev direct")
                sh(f"ip -n {netns} link set direct up")
        taps = [
            stack.enter_context(WireTap(names[wire], f"wire{wire}", UNDERLAY))
            for wire in range((count - 1) * tapped)
        ]
        hosts = []
        for number, netns in enumerate(names):
            folder = tmp_path / netns
            folder.mkdir()
            write_key(folder / "own.key", SEEDS[number])
            (folder / "vsw.toml").write_text(config(number, count, way, direct=direct))
            daemon = Daemon(folder / "vsw.toml", ["ip", "netns", "exec", netns])
            stack.callback(daemon.close)
            hosts.append(Host(netns, daemon))
        for number, host in enumerate(hosts):
            host.daemon.wait("READY=1")
            sh(f"ip -n {host.netns} address add 10.5.0.{number + 1}/24 dev vsw0")
        yield hosts
        assert [host.daemon.stop() for host in hosts] == [0] * count
        for tap in taps:
            tap.check(may_be_quiet=True)
        assert any(tap.datagrams for tap in taps) or not tapped


# ---- tests


def tcp(source: Host, target: Host, number: int) -> float:
    """Gbit/s received, of one TCP connection."""
    words = ["ip", "netns", "exec", target.netns, "iperf3", "-s", "-1", "--forceflush"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        while "Server listening" not in server.stdout.readline():
            pass
        text = source.run(f"iperf3 -c 10.5.0.{number + 1} -t {TCP_S} -J")
        server.stdout.read()
    return float(json.loads(text)["end"]["sum_received"]["bits_per_second"]) / 1e9


def test_through_a_node_that_has_no_key(tmp_path: Path) -> None:
    with row(tmp_path, 3, tapped=False) as (a, b, c):
        wires = [WireTap(b.netns, f"wire{wire}", UNDERLAY) for wire in (0, 1)]
        with wires[0], wires[1]:
            until(lambda: a.ping(2), "the first answer through b")
            a.run(f"ping -c 3 -i 0.05 -W 5 -s 1000 -p {MARKER.hex()} 10.5.0.3")
            c.run(f"ping -c 3 -i 0.05 -W 5 -s 1000 -p {MARKER.hex()} 10.5.0.1")
            for wire in wires:
                wire.check()
                assert wire.datagrams >= 2 * (3 + 3)
        peer = a.peer(2)
        assert (peer["endpoint"], peer["via"]) == (None, public(SEEDS[1]))
        assert peer["state"] == "connected"

        cpu_s, passed = b.daemon.cpu_s(), [b.peer(n)["relayed_bytes"] for n in (0, 2)]
        rate = tcp(a, c, 2)
        cpu_s = b.daemon.cpu_s() - cpu_s
        passed = [b.peer(n)["relayed_bytes"] - old for n, old in zip((0, 2), passed, strict=True)]
        assert passed[1] >= rate * 1e9 / 8 * TCP_S * 0.9, "the way was another one"
        print(
            f"through b: {rate:.2f} Gbit/s; b: {cpu_s / sum(passed) * 1e9:.3f} ns of CPU time per "
            f"byte passed on ({sum(passed) / 1e9:.2f} GB)"
        )

        expect_no_keys_of_others(a, b, c)


def expect_no_keys_of_others(a: Host, b: Host, c: Host) -> None:
    """b, between a and c, holds nothing that those two share, nor what could make it."""
    pids = [host.daemon.process.pid for host in (a, b, c)]
    of_a, of_b, of_c = (memory.secrets(pid) for pid in pids)
    shared = of_a & of_c
    assert len(shared) >= 4, "two halves of a key for each direction"
    assert len(of_a & of_b) >= 4
    assert memory.holds(pids[1], of_a & of_b) == of_a & of_b, "the search is blind"
    assert memory.holds(pids[1], shared) == set()
    # Whoever had one of these could take part in a handshake of theirs.
    identities = [Identity(seed) for seed in SEEDS[:3]]
    privates = [identity.static_private for identity in identities]
    of_both = dh(privates[0], identities[2].static_public)
    for pid, number in ((pids[0], 0), (pids[2], 2)):
        assert memory.holds(pid, {privates[number], of_both}) == {privates[number], of_both}
    assert memory.holds(pids[1], {*privates, of_both}) == {privates[1]}


def test_a_packet_that_does_not_fit_the_longer_way_is_told_so(tmp_path: Path) -> None:
    with row(tmp_path, 3) as (a, _, _):
        until(lambda: a.ping(2), "the first answer through b")
        assert a.ping(1, "-M", "do", "-s", "1372"), "1400 bytes to the neighbour"
        assert a.ping(2, "-M", "do", "-s", "1340"), "1368 bytes through it"
        assert not a.ping(2, "-M", "do", "-s", "1341")
        assert "mtu 1368" in a.run("ip route get 10.5.0.3")


def test_through_two_nodes(tmp_path: Path) -> None:
    with row(tmp_path, 4) as (a, b, c, d):
        until(lambda: a.ping(3), "the first answer through b and c")
        assert d.ping(0)
        assert [host.peer(3)["via"] for host in (a, b)] == [public(SEEDS[n]) for n in (1, 2)]
        assert c.peer(3)["endpoint"] == f"{address(2, 1)}:{PORT}"
        assert "hop_limit" not in b.drops()


def test_a_restart_of_the_node_in_between(tmp_path: Path) -> None:
    with row(tmp_path, 3) as (a, b, c):
        until(lambda: a.ping(2), "the first answer through b")
        handshake_s = time.monotonic() - a.peer(2)["last_handshake_s"]
        assert b.daemon.stop() == 0
        b.daemon.close()
        b.daemon.start()
        b.daemon.wait("READY=1")
        sh(f"ip -n {b.netns} address add 10.5.0.2/24 dev vsw0")
        until(lambda: a.ping(2), "an answer through the new b")
        assert c.ping(0)
        again_s = time.monotonic() - a.peer(2)["last_handshake_s"]
        assert abs(again_s - handshake_s) < 5, "the session of the ends has nothing to do with b"


def test_a_routing_loop_ends(tmp_path: Path) -> None:
    """a believes that c is behind b, b that it is behind a; c says nothing."""
    lies = {(0, 2): 1, (1, 2): 0, (2, 0): None, (2, 1): None}
    with row(tmp_path, 3, lambda number, other: lies.get((number, other), other)) as (a, b, _):
        until(lambda: a.ping(1), "the neighbour's answer")
        assert not a.ping(2)
        until(lambda: sum(h.drops().get("hop_limit", 0) for h in (a, b)) > 0, "the end of the loop")
        assert a.ping(1)


def test_a_detour_while_the_direct_wire_is_cut(tmp_path: Path) -> None:
    with row(tmp_path, 3, direct=True) as (a, b, c):

        def ways() -> list[tuple[str | None, str | None]]:
            return [(p["endpoint"], p["via"]) for p in (a.peer(2), c.peer(0))]

        straight = [(f"{direct_address(number)}:{PORT}", None) for number in (2, 0)]
        detour = [(None, public(SEEDS[1]))] * 2
        until(lambda: a.ping(2) and ways() == straight, "the ends on the direct wire")
        relayed = b.peer(2)["relayed_bytes"]
        sh(f"ip -n {c.netns} link set direct down")
        until(lambda: a.ping(2) and ways() == detour, "an answer by the other node")
        assert b.peer(2)["relayed_bytes"] > relayed
        sh(f"ip -n {c.netns} link set direct up")
        until(lambda: a.ping(2) and ways() == straight, "the direct wire in use", 180)
