"""The MAC table through a bridge, against a dictionary."""

from _dataplane import ffi, lib
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from scapy.layers.l2 import Ether

from tests.fakes.switchbox import SwitchBox

MACS = [f"02:00:00:00:01:{i:02x}" for i in range(12)]
PORTS = 3
AGEING_S = 10


class FdbMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.box = SwitchBox(PORTS)
        lib.fdb_set_ageing(self.box.fdb, AGEING_S)
        self.where: dict[str, tuple[int, int]] = {}  # mac -> port, when seen (s)

    def teardown(self):
        self.box.close()

    def now_s(self) -> int:
        return self.box.now_ns // 10**9

    @rule(port=st.integers(0, PORTS - 1), source=st.sampled_from(MACS), to=st.sampled_from(MACS))
    def send(self, port, source, to):
        self.box.ports[port].send(Ether(dst=to, src=source, type=0x88B5) / (b"m" * 46))
        self.box.settle()
        got = {p.id for p in self.box.ports if p.receive()}
        self.where[source] = (port, self.now_s())
        if to in self.where:
            assert got == {self.where[to][0]} - {port}
        else:
            assert got == set(range(PORTS)) - {port}

    @rule(seconds=st.integers(1, 2 * AGEING_S))
    def wait(self, seconds):
        # A worker sweeps a part of the table every 15 ms; the whole in a second.
        for _ in range(seconds * 70):
            self.box.breathe(advance_ns=16_000_000)
        self.box.settle()
        self.maybe = {m for m, (_, at) in self.where.items() if self.now_s() - at > AGEING_S}
        alive = self.dump()
        for mac in self.maybe - alive.keys():
            del self.where[mac]
        for mac in self.where:
            assert mac in alive

    @rule(port=st.integers(0, PORTS - 1))
    def flush(self, port):
        lib.fdb_flush_port(self.box.fdb, port)
        self.where = {mac: (p, at) for mac, (p, at) in self.where.items() if p != port}

    def dump(self) -> dict[str, int]:
        cursor = ffi.new("uint32_t *")
        entries = ffi.new("struct fdb_entry[4]")
        found = {}
        while count := lib.fdb_dump(self.box.fdb, self.box.now_ns, cursor, entries, 4):
            for entry in entries[0:count]:
                found[":".join(f"{byte:02x}" for byte in entry.mac)] = entry.port
        return found

    @invariant()
    def dump_is_the_dictionary(self):
        assert self.dump() == {mac: port for mac, (port, _) in self.where.items()}


TestFdb = FdbMachine.TestCase
TestFdb.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)


def test_a_port_that_makes_up_addresses_evicts_nobody():
    with SwitchBox(3, macs=64) as box:
        honest = "02:00:00:00:00:0b"
        box.ports[1].send(Ether(dst="ff:ff:ff:ff:ff:ff", src=honest, type=0x88B5) / (b"h" * 46))
        box.settle()
        for i in range(500):
            source = f"06:00:00:00:{i >> 8:02x}:{i & 255:02x}"
            box.ports[0].send(Ether(dst=honest, src=source, type=0x88B5) / (b"f" * 46))
            box.settle()
        for port in box.ports:
            port.receive()
        box.ports[2].send(Ether(dst=honest, src="02:00:00:00:00:0c", type=0x88B5) / (b"x" * 46))
        box.settle()
        assert [len(port.receive()) for port in box.ports] == [0, 1, 0]
