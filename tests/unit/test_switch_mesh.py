"""The mesh under changes of the configuration: in place, replaced, undone."""

from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from mesh.errors import ConfigError
from tests.fakes.plugs import KEYS, Maker, MeshPlug, bridge, config, died, mesh_of, vm
from vhost.errors import VhostError
from vswitch import core
from vswitch.errors import UserError
from vswitch.model import Config
from vswitch.state import routes_of
from vswitch.switch import Switch


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture
def switch(maker: Maker) -> Iterator[Switch]:
    made = Switch(maker, died)
    yield made
    made.close()


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


@pytest.mark.parametrize(
    "new",
    [
        config(bridge(vm("vm1")), mesh=mesh_of(KEYS[1], port=7401)),
        config(bridge(vm("vm1")), mesh=mesh_of(KEYS[1]), key=KEYS[3]),
    ],
    ids=["listen", "key"],
)
def test_another_socket_or_key_is_another_mesh(switch: Switch, maker: Maker, new: Config) -> None:
    switch.apply(config(bridge(vm("vm1")), mesh=mesh_of(KEYS[1])))
    before = switch.state.mesh
    switch.apply(new)
    assert switch.state.mesh is not before
    assert maker.events == ["start vm1", "start mesh", "close mesh", "start mesh"]


def test_the_old_mesh_comes_back_when_the_new_one_fails(switch: Switch, maker: Maker) -> None:
    old = config(bridge(vm("vm1")), mesh=mesh_of(KEYS[1]))
    switch.apply(old)
    maker.fail["start mesh"] = ConfigError("port 7401 is taken", "choose another")
    with pytest.raises(UserError, match=r"mesh\.listen: port 7401 is taken; choose another"):
        switch.apply(config(bridge(vm("vm1")), mesh=mesh_of(KEYS[1], port=7401)))
    assert maker.events == [
        "start vm1",
        "start mesh",
        "close mesh",
        "start mesh",
        "close mesh",
        "start mesh",
    ]
    assert switch.state.mesh is not None
    assert switch.state.config == old


def test_the_mesh_can_go(switch: Switch, maker: Maker) -> None:
    switch.apply(config(bridge(vm("vm1")), mesh=mesh_of(KEYS[1])))
    switch.apply(config(bridge(vm("vm1"))))
    assert switch.state.mesh is None
    assert maker.events[-1] == "close mesh"
