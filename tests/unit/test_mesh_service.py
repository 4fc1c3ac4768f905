"""mesh/service.py with real sockets on loopback and the real data plane, breathed by hand."""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from mesh.address import Address
from mesh.config import MeshConfig, PeerConfig
from mesh.errors import ConfigError, LocalError
from mesh.identity import Identity
from mesh.keyfile import write_private_key
from mesh.peer import INITIATION_INTERVAL_NS
from mesh.service import MeshService
from mesh.sockets import open_sockets
from mesh.wire import Cipher
from vswitch import core

DEADLINE_S = 10.0


class Host:
    """A mesh alone: workers, and the snapshot that has nothing but it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, config: MeshConfig, workers: int) -> None:
        self.loop = loop
        self.resources = ExitStack()
        self.workers = [self.resources.enter_context(core.Worker(i)) for i in range(workers)]
        self.routes = self.resources.enter_context(core.Routes([]))
        self.neighbours = self.resources.enter_context(core.Neighbours(16))
        self.snapshot: core.Snapshot | None = None
        self.published = 0
        self.started = False
        self.service = MeshService(5, config, self, loop, workers)
        self.resources.callback(self.service.close)

    def start(self) -> None:
        self.service.start()
        self.started = True
        self.republish()

    def close(self) -> None:
        self.started = False
        self.republish()
        self.service.close()
        for worker in self.workers:
            worker.publish(None)
            worker.breathe(time.monotonic_ns())
        if self.snapshot is not None:
            self.snapshot.close()
        self.resources.close()

    def republish(self) -> None:
        self.published += 1
        old, self.snapshot = self.snapshot, core.Snapshot(len(self.workers))
        if self.started:
            self.snapshot.add_port(self.service.c_port, None)
            for worker, rxqs in enumerate(self.service.c_rxqs):
                for rxq in rxqs:
                    self.snapshot.add_rxq(worker, rxq)
        self.snapshot.set_routes(self.routes, self.neighbours)
        for worker in self.workers:
            worker.publish(self.snapshot)
            worker.breathe(time.monotonic_ns())
        self.sync()
        if old is not None:
            old.close()

    def sync(self) -> None:
        for worker in self.workers:
            worker.sync(1_000_000_000)

    def pump(self) -> None:
        for worker in self.workers:
            worker.breathe(time.monotonic_ns())
            for punt in worker.punts(64):
                self.service.handle_punt(punt)

    @property
    def connected(self) -> bool:
        return all(peer["state"] == "connected" for peer in self.service.status())


class Pair:
    def __init__(self, directory: Path, loopback: str = "127.0.0.1") -> None:
        self.loop = asyncio.new_event_loop()
        self.identities = [Identity(bytes([i]) * 32) for i in (1, 2)]
        self.files = []
        for number in (1, 2):
            path = str(directory / f"{number}.key")
            write_private_key(path, bytes([number]) * 32)
            self.files.append(path)
        self.loopback = ip_address(loopback)
        self.hosts: list[Host] = []

    def config(self, number: int, endpoint: int | None, **peer: object) -> MeshConfig:
        other = PeerConfig(
            self.identities[1 - number].public_key,
            () if endpoint is None else (Address(self.loopback, endpoint),),
            (ip_network(f"10.5.0.{2 - number}/32"),),
            **peer,
        )
        return MeshConfig(Address(self.loopback, 0), self.files[number], (other,), 1400)

    def start(self, workers: int = 1, **peer: object) -> tuple[Host, Host]:
        b = self.add(self.config(1, None, **peer), workers)
        a = self.add(self.config(0, b.service.listen_port, **peer), workers)
        return a, b

    def add(self, config: MeshConfig, workers: int) -> Host:
        host = Host(self.loop, config, workers)
        self.hosts.append(host)
        host.start()
        return host

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, [h.service.status() for h in self.hosts]
            for host in self.hosts:
                host.pump()
            self.loop.run_until_complete(asyncio.sleep(0))

    def until_answered_again(self) -> None:
        """A node answers the initiations of one peer at most every 20 ms."""
        began = time.monotonic_ns()
        self.until(lambda: time.monotonic_ns() - began > INITIATION_INTERVAL_NS)

    def close(self) -> None:
        for host in self.hosts:
            host.close()
        self.loop.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.close()


@pytest.fixture
def pair6(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path, "::1")
    yield made
    made.close()


def both_connected(a: Host, b: Host) -> Callable[[], bool]:
    return lambda: a.connected and b.connected


@pytest.mark.parametrize("workers", [1, 2])
def test_two_nodes_agree_on_keys(pair: Pair, workers: int) -> None:
    a, b = pair.start(workers)
    pair.until(both_connected(a, b))
    (status,) = b.service.status()
    assert status["endpoint"] == f"127.0.0.1:{a.service.listen_port}"
    assert status["addresses"] == ["10.5.0.1/32"]
    assert isinstance(status["last_handshake_s"], float)
    assert status["rx_bytes"] >= 48  # the keepalive that confirmed the key; and probes
    assert a.service.status()[0]["tx_bytes"] >= 48


def test_ciphers_in_order_of_preference(pair: Pair) -> None:
    b = pair.add(replace(pair.config(1, None), ciphers=tuple(Cipher)[::-1]), 1)
    a = pair.add(pair.config(0, b.service.listen_port), 1)
    pair.until(both_connected(a, b))
    assert b.service._node is not None
    (status,) = b.service._node.status(time.monotonic_ns())
    assert [session.cipher for session in status.sessions] == [Cipher.CHACHA20_POLY1305.name]


def test_two_nodes_agree_on_keys_over_ipv6(pair6: Pair) -> None:
    a, b = pair6.start()
    pair6.until(both_connected(a, b))
    assert b.service.status()[0]["endpoint"] == f"[::1]:{a.service.listen_port}"


def test_preshared_keys_must_agree(pair: Pair) -> None:
    b = pair.add(pair.config(1, None, preshared_key=bytes(range(32))), 1)
    a = pair.add(pair.config(0, b.service.listen_port), 1)
    pair.until(lambda: a.service.refused().get("not_decrypted", 0) == 1)
    assert not a.connected
    assert not b.connected


def test_a_stranger_hears_nothing(pair: Pair) -> None:
    a, b = pair.start()
    pair.until(both_connected(a, b))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.settimeout(0)
        for length, kind in ((152, 1), (96, 2), (64, 3), (64, 4), (1, 1), (0, 0)):
            data = bytes([kind] * min(1, length)) + os.urandom(max(0, length - 1))
            stranger.sendto(data, ("127.0.0.1", b.service.listen_port))
        # Our own keepalive comes after all of it, on the same socket.
        before = b.service.status()[0]["rx_bytes"]
        assert a.service._core is not None
        a.service._core.send_keepalive(next(iter(a.service.peer_ids.values())))
        pair.until(lambda: b.service.status()[0]["rx_bytes"] != before)
        with pytest.raises(BlockingIOError):
            stranger.recv(100)


def test_unchanged_configuration_keeps_sessions(pair: Pair) -> None:
    a, b = pair.start()
    pair.until(both_connected(a, b))
    ids, published = a.service.peer_ids, a.published
    a.service.apply(pair.config(0, b.service.listen_port))
    assert a.connected
    assert a.service.peer_ids == ids
    assert a.published == published


def test_removed_peer_loses_route_first_and_comes_back_under_another_number(pair: Pair) -> None:
    a, b = pair.start()
    pair.until(both_connected(a, b))
    ids, published = dict(a.service.peer_ids), a.published
    config = pair.config(0, b.service.listen_port)
    pair.until_answered_again()
    a.service.apply(replace(config, peers=()))
    assert a.service.status() == []
    assert a.service.peer_ids == {}
    assert a.published == published + 1
    a.service.apply(config)
    pair.until(both_connected(a, b))
    assert set(a.service.peer_ids.values()).isdisjoint(ids.values())


def test_fixed_settings_are_refused_and_nothing_changes(pair: Pair) -> None:
    a, b = pair.start()
    pair.until(both_connected(a, b))
    with pytest.raises(ConfigError):
        a.service.apply(replace(pair.config(0, None), mtu_bytes=1300))
    assert a.connected


def test_own_key_as_peer_is_refused_and_nothing_changes(pair: Pair) -> None:
    a, b = pair.start()
    pair.until(both_connected(a, b))
    config = pair.config(0, None)
    own = replace(config.peers[0], public_key=pair.identities[0].public_key)
    with pytest.raises(ConfigError, match="own public key"):
        a.service.apply(replace(config, peers=(own,)))
    assert a.connected


def test_restarted_node_is_connected_again_at_once(pair: Pair) -> None:
    a, b = pair.start()
    pair.until(both_connected(a, b))
    pair.until_answered_again()
    pair.hosts.remove(a)
    a.close()
    began = time.monotonic()
    a = pair.add(pair.config(0, b.service.listen_port), 1)
    pair.until(both_connected(a, b))
    assert time.monotonic() - began < 2


def test_close_gives_everything_back(pair: Pair) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    host = pair.add(pair.config(0, None), 2)
    pair.hosts.remove(host)
    host.close()
    host.service.close()
    assert len(os.listdir("/proc/self/fd")) <= len(before)
    with pytest.raises(LocalError):
        _ = host.service.c_port


@pytest.mark.parametrize("count", [1, 2])
def test_taken_port_is_named(count: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        listen = Address(ip_address("127.0.0.1"), other.getsockname()[1])
        with pytest.raises(ConfigError, match=f"UDP {listen} is in use; stop the other program"):
            open_sockets(listen, count)


def test_foreign_address_is_named() -> None:
    with pytest.raises(ConfigError, match="is no address of this host"):
        open_sockets(Address(ip_address("192.0.2.1"), 7400), 1)


def test_low_port_needs_permission() -> None:
    """In a child that is nobody, where we are root."""
    if os.geteuid() != 0:
        assert_refused_for_permission()
        return
    pid = os.fork()
    if pid == 0:
        os.setresuid(65534, 65534, 65534)
        try:
            assert_refused_for_permission()
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def assert_refused_for_permission() -> None:
    start = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if start <= 1:
        return  # this machine gives low ports to everybody
    with pytest.raises(ConfigError, match="may not be used by this user; choose a port above"):
        open_sockets(Address(ip_address("127.0.0.1"), 1), 1)
