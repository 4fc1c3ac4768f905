"""The switch as a difference between configurations: what stays, comes, goes, and is undone.

Plugs are fakes around real C ports; workers, snapshots and MAC tables are real.
"""

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.fakes.plugs import CPU, KEYS, Maker, bridge, config, died, mesh_of, plugs, vm
from vhost.errors import VhostError
from vswitch import core
from vswitch.balance import Wish
from vswitch.errors import UserError
from vswitch.host import allowed_cpus
from vswitch.model import Config, TapPort, VhostUserPort
from vswitch.state import MESH, Attached, State, number, router_mac, routes_of, wishes
from vswitch.switch import Switch
from vswitch.workers import numa_node


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture
def switch(maker: Maker) -> Iterator[Switch]:
    made = Switch(maker, died)
    yield made
    made.close()


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
    switch: Switch, maker: Maker
) -> None:
    switch.apply(TWO)
    switch.apply(config(bridge(vm("vm2"))))
    assert maker.events[-1] == "close vm1"
    switch.apply(config(bridge(vm("vm2"), vm("vm9"))))
    assert {name: p.port_id for (_, name), p in switch.state.ports.items()} == {"vm2": 1, "vm9": 0}


@pytest.mark.parametrize(
    "changed",
    [
        config(bridge(vm("vm1", mode="client"), vm("vm2"))),
        config(bridge(vm("vm1", path="/else"), vm("vm2"))),
        config(bridge(TapPort("vm1", "tap1", ()), vm("vm2"))),
    ],
    ids=["mode", "path", "type"],
)
def test_a_changed_port_is_another_with_the_same_number(
    switch: Switch, maker: Maker, changed: Config
) -> None:
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


@pytest.mark.parametrize(
    "error",
    [VhostError("the socket is taken"), UserError("wrong", "do better")],
    ids=["vhost", "user"],
)
def test_a_failed_start_leaves_everything_as_it_was(
    switch: Switch, maker: Maker, error: Exception
) -> None:
    switch.apply(TWO)
    state = switch.state
    maker.fail["start vm4"] = error
    with pytest.raises(UserError) as caught:
        switch.apply(config(bridge(vm("vm1"), vm("vm3"), vm("vm4")), bridge(name="br1")))
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
    assert maker.events[2:] == [
        "start vm3",
        "close vm1",
        "start renamed",
        "close renamed",
        "close vm3",
        "start vm1",
    ]
    assert after["vm1"].c_rxqs
    assert switch.worker_of(after["vm1"].c_rxqs[0]) == 0


def ping(switch: Switch, sender: str, receiver: str) -> None:
    """A frame from one port to the other."""
    one, two = plugs(switch)[sender], plugs(switch)[receiver]
    two.cable.settimeout(10)
    frame = b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + bytes(50)
    one.cable.send(bytes(12) + frame)
    assert two.cable.recv(2048)[12:] == frame


def test_workers_come_and_go(switch: Switch, maker: Maker) -> None:
    switch.apply(TWO)
    before, first = plugs(switch), switch.workers[0]
    switch.apply(config(bridge(vm("vm1"), vm("vm2"), vm("vm3")), cpus=(CPU, CPU)))
    assert [thread.index for thread in switch.workers] == [0, 1]
    assert switch.worker_of(plugs(switch)["vm3"].c_rxqs[0]) == 1
    ping(switch, "vm3", "vm1")
    ping(switch, "vm1", "vm3")
    leaving = switch.workers[1]
    switch.apply(config(bridge(vm("vm1"), vm("vm2"), vm("vm3"))))
    assert switch.workers == [first]
    assert not leaving.running
    assert {switch.worker_of(plug.c_rxqs[0]) for plug in plugs(switch).values()} == {0}
    ping(switch, "vm3", "vm2")
    assert plugs(switch)["vm1"] is before["vm1"]
    assert maker.events == ["start vm1", "start vm2", "start vm3"]


def test_a_busy_worker_gives_a_queue_away(switch: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters are made up: vm1 and vm3, which one worker has, take all of its time."""
    switch.apply(config(bridge(*(vm(f"vm{i}") for i in (1, 2, 3, 4))), cpus=(CPU, CPU)))
    queue = {name: plug.c_rxqs[0] for name, plug in plugs(switch).items()}
    assert [switch.worker_of(rxq) for rxq in queue.values()] == [0, 1, 0, 1]
    second = 1_000_000_000
    now = 0

    def counters(self: core.Worker) -> dict[str, int]:
        busy = now if self is switch.workers[0].worker else 0
        return {"cycles_clock": now, "cycles_busy": busy}

    def rxq_counters(rxq: object) -> dict[str, int]:
        busy = rxq in (queue["vm1"], queue["vm3"])
        return {"timed_cycles": now // 2 // core.TIMED_EVERY if busy else 0}

    monkeypatch.setattr(core.Worker, "counters", counters)
    monkeypatch.setattr(core, "rxq_counters", rxq_counters)
    for now in range(second, 6 * second, second):
        switch.balance(now)
    assert sorted(switch.worker_of(queue[name]) for name in ("vm1", "vm3")) == [0, 1]
    assert [switch.worker_of(queue[name]) for name in ("vm2", "vm4")] == [1, 1]
    ping(switch, "vm1", "vm3")
    ping(switch, "vm3", "vm1")


def test_workers_that_came_for_nothing_go(switch: Switch, maker: Maker) -> None:
    switch.apply(TWO)
    before = list(switch.workers)
    maker.fail["start vm3"] = VhostError("no")
    with pytest.raises(UserError):
        switch.apply(config(bridge(vm("vm1"), vm("vm2"), vm("vm3")), cpus=(CPU, CPU)))
    assert switch.workers == before
    ping(switch, "vm1", "vm2")


@pytest.mark.parametrize("mesh_before", [True, False])
def test_the_number_of_workers_cannot_change_with_a_mesh(switch: Switch, mesh_before: bool) -> None:
    switch.apply(config(bridge(vm("vm1")), mesh=mesh_of() if mesh_before else None))
    with pytest.raises(UserError, match=r"workers\.cpus: 2 workers instead of 1.*mesh.*restart"):
        switch.apply(config(bridge(), cpus=(CPU, CPU), mesh=None if mesh_before else mesh_of()))
    assert list(plugs(switch)) == ["vm1"]


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


# ---- the end


def test_closing_stops_the_workers_first(maker: Maker) -> None:
    switch = Switch(maker, died)
    switch.apply(config(bridge(vm("vm1")), mesh=mesh_of()))
    thread = switch.workers[0]
    stopped: list[bool] = []
    maker.watch = lambda _: stopped.append(not thread.running)
    switch.close()
    assert stopped == [True, True]
    assert switch.workers == []


# ---- pure parts


def test_ports_that_name_cpus_have_them_for_themselves() -> None:
    def state(*ports: VhostUserPort) -> State:
        made = State(config())
        for i, port in enumerate(ports):
            plug = type("P", (), {"c_rxqs": [port.name], "numa_node": i})()
            made.ports["br0", port.name] = Attached(i, bridge(), port, plug)
        return made

    some = state(vm("a", cpus=(5,)), vm("b", cpus=(5, 7)), vm("c"))
    assert wishes(some, [4, 5, 6, 7]) == {
        "a": Wish((1,), 0),
        "b": Wish((1, 3), 1),
        "c": Wish((0, 2), 2),
    }
    assert wishes(state(vm("a")), [4, 5]) == {"a": Wish((0, 1), 0)}
    # While the CPUs of workers change, none of those named may be there.
    assert wishes(state(vm("a", cpus=(5,))), [4]) == {"a": Wish((0,), 0)}


def test_numbers_are_kept_and_not_given_away_in_the_same_change() -> None:
    first = number({}, config(bridge(vm("a"), vm("b")), mesh=mesh_of()))
    assert first == {("br0", "a"): 0, ("br0", "b"): 1, MESH: 2}
    second = number(first, config(bridge(vm("c"), vm("b"))))
    assert second == {("br0", "c"): 3, ("br0", "b"): 1}
    assert number(second, config(bridge(vm("c"), vm("d")))) == {("br0", "c"): 3, ("br0", "d"): 0}


def test_router_macs_are_local_unicast_stable_and_different() -> None:
    one = config(mesh=mesh_of())
    macs = {
        router_mac(one, "br0"),
        router_mac(one, "br1"),
        router_mac(config(mesh=mesh_of(), key=KEYS[4]), "br0"),
        router_mac(config(), "br0"),
    }
    assert len(macs) == 4
    assert all(mac[0] & 3 == 2 and len(mac) == 6 for mac in macs)
    assert router_mac(one, "br0") == router_mac(one, "br0")


def test_frames_move_between_ports_of_a_running_switch(switch: Switch) -> None:
    switch.apply(TWO)
    ping(switch, "vm1", "vm2")
    two = plugs(switch)["vm2"]
    switch.sync()  # the frame is counted after it was sent, in the same breath
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
