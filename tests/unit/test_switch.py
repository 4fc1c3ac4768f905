"""The switch as a difference between configurations: what stays, comes, goes, and is undone.

Plugs are fakes around real C ports; workers, snapshots and MAC tables are real.
"""

import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from mesh.address import Address
from mesh.config import MeshConfig, PeerConfig
from mesh.core import Punt
from mesh.errors import ConfigError
from vhost.errors import VhostError
from vswitch import core
from vswitch.errors import UserError
from vswitch.host import allowed_cpus
from vswitch.model import Bridge, Config, Control, Port, TapPort, VhostUserPort, Workers
from vswitch.ports import Publisher
from vswitch.state import MESH, State, assign, number, router_mac, routes_of
from vswitch.switch import Switch
from vswitch.workers import numa_node

CPU = allowed_cpus()[0]
KEYS = [bytes([i]) * 32 for i in range(5)]


class Plug:
    """A port whose cable is a socket pair."""

    def __init__(self, port_id: int, port: Port, maker: "Maker") -> None:
        self.name = port.name
        self.port_id = port_id
        self._maker = maker
        ours, self.cable = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        self._port = core.TapPort(port_id, ours.detach())
        self.c_port: object = self._port.c
        self.c_rxqs: list[object] = []

    def start(self) -> None:
        self._maker.happen("start", self.name)
        self.c_rxqs.append(self._port.rxq())

    def close(self) -> None:
        self._maker.events.append(f"close {self.name}")
        self._port.close()
        self.cable.close()

    def status(self) -> dict[str, object]:
        return {"state": "up"}


class MeshPlug(Plug):
    """The mesh; its peers' numbers are their places in the configuration."""

    def __init__(self, port_id: int, config: MeshConfig, maker: "Maker") -> None:
        super().__init__(port_id, TapPort("mesh", "mesh", ()), maker)
        self.config = config

    @property
    def c_rxqs(self) -> list[list[object]]:  # type: ignore[override]  # per worker
        return [self._rxqs]

    @c_rxqs.setter
    def c_rxqs(self, value: list[object]) -> None:
        self._rxqs = value

    @property
    def peer_ids(self) -> Mapping[bytes, int]:
        return {peer.public_key: i for i, peer in enumerate(self.config.peers)}

    def start(self) -> None:
        self._maker.happen("start", self.name)
        self._rxqs.append(self._port.rxq())

    def apply(self, config: MeshConfig) -> None:
        self._maker.happen("apply", f"mesh {len(config.peers)}")
        self.config = config

    def handle_punt(self, punt: Punt) -> None:
        raise AssertionError(f"nothing punts here: {punt}")


class Maker:
    """Makes fakes and remembers what happened.  fail: "start vm2": that step fails, once."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.fail: dict[str, Exception] = {}

    def happen(self, what: str, name: str) -> None:
        self.events.append(f"{what} {name}")
        error = self.fail.pop(f"{what} {name}", None)
        if error is not None:
            raise error

    def port(self, port_id: int, config: Config, bridge: Bridge, port: Port,
             publisher: Publisher) -> Plug:
        return Plug(port_id, port, self)

    def mesh(self, port_id: int, config: MeshConfig, publisher: Publisher,
             workers: int) -> MeshPlug:
        return MeshPlug(port_id, config, self)


def vm(name: str, path: str = "", **changes: object) -> VhostUserPort:
    return replace(VhostUserPort(name, path or f"/{name}", "server", 0o660, None, None, ()),
                   **changes)


def bridge(*ports: Port, name: str = "br0", mtu_bytes: int = 1400, macs: int = 64) -> Bridge:
    return Bridge(name, (ip_network("10.5.0.0/24"),), mtu_bytes, 300, macs, ports)


def config(*bridges: Bridge, mesh: MeshConfig | None = None, cpus: tuple[int, ...] = (CPU,),
           key: bytes = KEYS[0]) -> Config:
    return Config("/f", Control(), Workers(cpus), bridges, mesh, key if mesh else None)


def mesh_of(*peers: bytes, port: int = 7400) -> MeshConfig:
    listen = Address.parse(f"127.0.0.1:{port}")
    return MeshConfig(listen, "key", tuple(
        PeerConfig(key, addresses=(ip_network(f"10.9.{key[0]}.0/24"),)) for key in peers), 1400)


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture
def switch(maker: Maker) -> Iterator[Switch]:
    made = Switch(maker, died)
    yield made
    made.close()


def died(reason: str) -> None:
    raise AssertionError(reason)


def plugs(switch: Switch) -> dict[str, object]:
    return {name: attached.plug for (_, name), attached in switch.state.ports.items()}


TWO = config(bridge(vm("vm1"), vm("vm2")))


def test_ports_that_do_not_change_are_the_same_objects(switch: Switch, maker: Maker) -> None:
    switch.apply(TWO)
    before, worker = plugs(switch), switch.workers[0]
    switch.apply(config(bridge(vm("vm2"), vm("vm3"), vm("vm1"))))
    after = plugs(switch)
    assert list(after) == ["vm2", "vm3", "vm1"]
    assert after["vm1"] is before["vm1"]
    assert after["vm2"] is before["vm2"]
    assert switch.workers == [worker]
    assert maker.events == ["start vm1", "start vm2", "start vm3"]


def test_addresses_change_without_the_port_noticing(switch: Switch, maker: Maker) -> None:
    switch.apply(TWO)
    before = plugs(switch)["vm1"]
    owned = ip_network("10.5.0.7/32")
    switch.apply(config(bridge(vm("vm1", addresses=(owned,)), vm("vm2"))))
    assert plugs(switch)["vm1"] is before
    assert routes_of(switch.state) == [(owned, core.ROUTE_PORT + 0)]


def test_removed_ports_are_closed_and_their_number_is_used_again(
        switch: Switch, maker: Maker) -> None:
    switch.apply(TWO)
    switch.apply(config(bridge(vm("vm2"))))
    assert maker.events[-1] == "close vm1"
    switch.apply(config(bridge(vm("vm2"), vm("vm9"))))
    assert {name: p.port_id for (_, name), p in switch.state.ports.items()} == {
        "vm2": 1, "vm9": 0}


@pytest.mark.parametrize("changed", [
    config(bridge(vm("vm1", mode="client"), vm("vm2"))),
    config(bridge(vm("vm1", path="/else"), vm("vm2"))),
    config(bridge(TapPort("vm1", "tap1", ()), vm("vm2"))),
], ids=["mode", "path", "type"])
def test_a_changed_port_is_another_with_the_same_number(
        switch: Switch, maker: Maker, changed: Config) -> None:
    switch.apply(TWO)
    before = plugs(switch)
    switch.apply(changed)
    after = plugs(switch)
    assert after["vm1"] is not before["vm1"]
    assert after["vm2"] is before["vm2"]
    assert switch.state.ports["br0", "vm1"].port_id == 0
    assert sorted(maker.events) == ["close vm1", "start vm1", "start vm1", "start vm2"]


def test_a_socket_is_free_before_its_next_user_starts(switch: Switch, maker: Maker) -> None:
    switch.apply(TWO)
    switch.apply(config(bridge(vm("renamed", path="/vm1"), vm("vm2"))))
    assert maker.events[-2:] == ["close vm1", "start renamed"]


def test_a_new_mtu_is_told_to_all_ports_of_the_bridge(switch: Switch) -> None:
    switch.apply(TWO)
    before = plugs(switch)
    switch.apply(config(bridge(vm("vm1"), vm("vm2"), mtu_bytes=1300)))
    assert not set(map(id, plugs(switch).values())) & set(map(id, before.values()))


def test_a_larger_mac_table_is_another(switch: Switch, maker: Maker) -> None:
    switch.apply(TWO)
    before, ports = switch.state.fdbs["br0"], plugs(switch)
    switch.apply(config(bridge(vm("vm1"), vm("vm2"), macs=128)))
    assert switch.state.fdbs["br0"] is not before
    assert before.c is None
    assert plugs(switch) == ports


# ---- undo


@pytest.mark.parametrize("error", [
    VhostError("the socket is taken"), UserError("wrong", "do better")], ids=["vhost", "user"])
def test_a_failed_start_leaves_everything_as_it_was(
        switch: Switch, maker: Maker, error: Exception) -> None:
    switch.apply(TWO)
    state = switch.state
    maker.fail["start vm4"] = error
    with pytest.raises(UserError) as caught:
        switch.apply(config(bridge(vm("vm1"), vm("vm3"), vm("vm4")),
                            bridge(name="br1")))
    assert str(error) in str(caught.value)
    assert switch.state == state
    assert maker.events[2:] == ["start vm3", "start vm4", "close vm4", "close vm3"]


def test_the_message_names_file_and_key(switch: Switch, maker: Maker) -> None:
    maker.fail["start vm1"] = VhostError("the socket is taken; choose another")
    with pytest.raises(UserError) as caught:
        switch.apply(TWO)
    place = "/f: bridges.br0.ports.vm1.path"
    assert str(caught.value) == f"{place}: the socket is taken; choose another"


def test_a_closed_port_comes_back_when_its_successor_fails(switch: Switch, maker: Maker) -> None:
    switch.apply(TWO)
    before = plugs(switch)
    maker.fail["start renamed"] = VhostError("no")
    with pytest.raises(UserError):
        switch.apply(config(bridge(vm("renamed", path="/vm1"), vm("vm2"), vm("vm3"))))
    after = plugs(switch)
    assert list(after) == ["vm1", "vm2"]
    assert after["vm2"] is before["vm2"]
    assert maker.events[2:] == ["start vm3", "close vm1", "start renamed", "close renamed",
                                "close vm3", "start vm1"]
    assert after["vm1"].c_rxqs
    assert switch.worker_of(after["vm1"].c_rxqs[0]) == 0


def test_the_number_of_workers_cannot_change(switch: Switch, maker: Maker) -> None:
    switch.apply(TWO)
    with pytest.raises(UserError, match=r"workers\.cpus: 2 workers instead of 1.*restart"):
        switch.apply(config(bridge(), cpus=(CPU, CPU)))
    assert list(plugs(switch)) == ["vm1", "vm2"]


@pytest.mark.skipif(len(allowed_cpus()) < 2, reason="needs a second CPU")
@pytest.mark.may_skip
def test_a_worker_moves_to_another_cpu_and_back_on_failure(switch: Switch, maker: Maker) -> None:
    first, second = allowed_cpus()[:2]
    switch.apply(config(bridge(), cpus=(first,)))
    thread = switch.workers[0]
    switch.apply(config(bridge(), cpus=(second,)))
    assert (switch.workers, thread.cpu) == ([thread], second)
    maker.fail["start vm1"] = VhostError("no")
    with pytest.raises(UserError):
        switch.apply(config(bridge(vm("vm1")), cpus=(first,)))
    assert thread.cpu == second


# ---- mesh


def test_the_mesh_changes_in_place(switch: Switch, maker: Maker) -> None:
    switch.apply(config(bridge(vm("vm1")), mesh=mesh_of(KEYS[1])))
    before = switch.state.mesh
    switch.apply(config(bridge(vm("vm1")), mesh=mesh_of(KEYS[1], KEYS[2])))
    assert switch.state.mesh is before
    assert maker.events[-1] == "apply mesh 2"
    assert routes_of(switch.state) == [
        (ip_network("10.9.1.0/24"), core.ROUTE_PEER + 0),
        (ip_network("10.9.2.0/24"), core.ROUTE_PEER + 1),
    ]


def test_a_peer_without_a_number_has_no_routes(switch: Switch) -> None:
    switch.apply(config(bridge(), mesh=mesh_of(KEYS[1], KEYS[2])))
    mesh = switch.state.mesh
    assert mesh is not None
    assert isinstance(mesh.plug, MeshPlug)
    mesh.plug.config = mesh_of(KEYS[2])
    assert routes_of(switch.state) == [(ip_network("10.9.2.0/24"), core.ROUTE_PEER + 0)]


def test_a_failed_change_of_the_mesh_is_undone(switch: Switch, maker: Maker) -> None:
    old = config(bridge(vm("vm1")), mesh=mesh_of(KEYS[1]))
    switch.apply(old)
    maker.fail["start vm1"] = VhostError("no")
    with pytest.raises(UserError):
        switch.apply(config(bridge(vm("vm1", mode="client")), mesh=mesh_of()))
    assert "apply mesh 0" in maker.events
    assert maker.events.index("apply mesh 1") > maker.events.index("apply mesh 0")
    assert switch.state.config == old


@pytest.mark.parametrize("new", [
    config(bridge(vm("vm1")), mesh=mesh_of(KEYS[1], port=7401)),
    config(bridge(vm("vm1")), mesh=mesh_of(KEYS[1]), key=KEYS[3]),
], ids=["listen", "key"])
def test_another_socket_or_key_is_another_mesh(switch: Switch, maker: Maker, new: Config) -> None:
    switch.apply(config(bridge(vm("vm1")), mesh=mesh_of(KEYS[1])))
    before = switch.state.mesh
    switch.apply(new)
    assert switch.state.mesh is not before
    assert maker.events == ["start vm1", "start mesh", "close mesh", "start mesh"]


def test_the_old_mesh_comes_back_when_the_new_one_fails(switch: Switch, maker: Maker) -> None:
    old = config(bridge(vm("vm1")), mesh=mesh_of(KEYS[1]))
    switch.apply(old)
    starts = iter([ConfigError("port 7401 is taken", "choose another")])
    real = maker.happen

    def happen(what: str, name: str) -> None:
        real(what, name)
        if (what, name) == ("start", "mesh"):
            for error in starts:
                raise error

    maker.happen = happen  # type: ignore[method-assign]  # the first start from now on fails
    with pytest.raises(UserError, match=r"mesh\.listen: port 7401 is taken; choose another"):
        switch.apply(config(bridge(vm("vm1")), mesh=mesh_of(KEYS[1], port=7401)))
    assert maker.events == ["start vm1", "start mesh", "close mesh", "start mesh", "close mesh",
                            "start mesh"]
    assert switch.state.mesh is not None
    assert switch.state.config == old


def test_the_mesh_can_go(switch: Switch, maker: Maker) -> None:
    switch.apply(config(bridge(vm("vm1")), mesh=mesh_of(KEYS[1])))
    switch.apply(config(bridge(vm("vm1"))))
    assert switch.state.mesh is None
    assert maker.events[-1] == "close mesh"


# ---- the end


def test_closing_stops_the_workers_first(maker: Maker) -> None:
    switch = Switch(maker, died)
    switch.apply(config(bridge(vm("vm1")), mesh=mesh_of()))
    thread = switch.workers[0]
    stopped: list[bool] = []
    real = Plug.close

    class Watching(Plug):
        pass

    def close(self: Plug) -> None:
        stopped.append(not thread._thread.is_alive())
        real(self)

    for attached in switch.state.ports.values():
        attached.plug.__class__ = Watching
    Watching.close = close  # type: ignore[method-assign]
    switch.close()
    assert stopped == [True]
    assert switch.workers == []


# ---- pure parts


def test_a_queue_goes_to_the_worker_with_the_fewest_and_stays() -> None:
    def state(*queues: list[str]) -> State:
        made = State(config())
        for i, listed in enumerate(queues):
            plug = type("P", (), {"c_rxqs": listed})()
            made.ports["br0", str(i)] = type("A", (), {"plug": plug})()
        return made

    first = assign(state(["a", "b", "c"]), 2, {})
    assert first == {"a": 0, "b": 1, "c": 0}
    second = assign(state(["c"], ["d", "e"]), 2, first)
    assert second == {"c": 0, "d": 1, "e": 0}
    assert assign(state(), 2, second) == {}


def test_numbers_are_kept_and_not_given_away_in_the_same_change() -> None:
    first = number({}, config(bridge(vm("a"), vm("b")), mesh=mesh_of()))
    assert first == {("br0", "a"): 0, ("br0", "b"): 1, MESH: 2}
    second = number(first, config(bridge(vm("c"), vm("b"))))
    assert second == {("br0", "c"): 3, ("br0", "b"): 1}
    assert number(second, config(bridge(vm("c"), vm("d")))) == {("br0", "c"): 3, ("br0", "d"): 0}


def test_router_macs_are_local_unicast_stable_and_different() -> None:
    one = config(mesh=mesh_of())
    macs = {router_mac(one, "br0"), router_mac(one, "br1"),
            router_mac(config(mesh=mesh_of(), key=KEYS[4]), "br0"), router_mac(config(), "br0")}
    assert len(macs) == 4
    assert all(mac[0] & 3 == 2 and len(mac) == 6 for mac in macs)
    assert router_mac(one, "br0") == router_mac(one, "br0")


def test_frames_move_between_ports_of_a_running_switch(switch: Switch) -> None:
    switch.apply(TWO)
    one, two = plugs(switch)["vm1"], plugs(switch)["vm2"]
    two.cable.settimeout(10)
    frame = b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + bytes(50)
    one.cable.send(bytes(12) + frame)
    assert two.cable.recv(2048)[12:] == frame
    assert core.port_counters(two.c_port).values["tx_packets"] == 1
    assert [mac for mac, _, _ in switch.state.fdbs["br0"].dump(0)] == [b"\x02\0\0\0\0\1"]


def test_a_port_that_leaves_takes_its_macs_along(switch: Switch) -> None:
    switch.apply(TWO)
    one, two = plugs(switch)["vm1"], plugs(switch)["vm2"]
    two.cable.settimeout(10)
    one.cable.send(bytes(12) + b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + bytes(50))
    two.cable.recv(2048)
    switch.apply(config(bridge(vm("vm2"))))
    assert switch.state.fdbs["br0"].dump(0) == []


def test_one_bridge_does_not_hear_the_other(switch: Switch) -> None:
    switch.apply(config(bridge(vm("vm1"), vm("vm2")), bridge(vm("vm3"), name="br1")))
    one, two, three = plugs(switch).values()
    two.cable.settimeout(10)
    one.cable.send(bytes(12) + b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + bytes(50))
    two.cable.recv(2048)
    three.cable.setblocking(False)
    with pytest.raises(BlockingIOError):
        three.cable.recv(2048)


def test_the_numa_node_is_read_from_sys() -> None:
    expected = [int(p.name[4:]) for p in Path(f"/sys/devices/system/cpu/cpu{CPU}").glob("node*")]
    assert numa_node(CPU) == (expected[0] if expected else None)
