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


def announce(box: SwitchBox, port: int, macs: list[str]) -> None:
    for mac in macs:
        box.ports[port].send(Ether(dst="02:00:00:00:00:ff", src=mac, type=0x88B5) / (b"a" * 46))
        box.settle()
        for other in box.ports:
            other.receive()


def known(box: SwitchBox) -> dict[str, int]:
    cursor, entries = ffi.new("uint32_t *"), ffi.new("struct fdb_entry[1024]")
    count = lib.fdb_dump(box.fdb, box.now_ns, cursor, entries, 1024)
    return {":".join(f"{byte:02x}" for byte in e.mac): e.port for e in entries[0:count]}


def made_up(port: int, count: int) -> list[str]:
    return [f"06:00:00:{port:02x}:{i >> 8:02x}:{i & 255:02x}" for i in range(count)]


def test_ports_that_fill_the_table_together_leave_room_for_others():
    """Six ports make up more addresses than the table holds; who comes later is learned, and who
    was there before stays."""
    with SwitchBox(9, macs=256) as box:
        early, late = made_up(0, 20), made_up(8, 20)
        announce(box, 0, early)
        for port in range(1, 7):
            announce(box, port, made_up(port, 150))
        announce(box, 8, late)
        table = known(box)
        assert {mac for mac, port in table.items() if port == 0} == set(early)
        assert {mac for mac, port in table.items() if port == 8} == set(late)


def test_one_port_may_fill_the_table():
    with SwitchBox(2, macs=128) as box:
        announce(box, 0, made_up(0, 300))
        assert 120 <= len(known(box)) <= 128  # less a few whose buckets are full


def test_ages_are_right_after_the_ageing_time_changed():
    with SwitchBox(2) as box:
        lib.fdb_set_ageing(box.fdb, 3200)  # counted in units of 100 s
        announce(box, 0, ["02:00:00:00:00:0a"])
        for _ in range(500):
            box.breathe(advance_ns=1_000_000_000)
        lib.fdb_set_ageing(box.fdb, 640)  # of 20 s
        for _ in range(100):
            box.breathe(advance_ns=1_000_000_000)
        cursor, entry = ffi.new("uint32_t *"), ffi.new("struct fdb_entry[1]")
        assert lib.fdb_dump(box.fdb, box.now_ns, cursor, entry, 1) == 1
        assert 500 <= entry[0].age_s <= 700
        for _ in range(200):
            box.breathe(advance_ns=1_000_000_000)
        assert known(box) == {}


def test_a_worker_whose_breath_began_before_anothers_sweeps_nothing():
    """It has the time of a second ago, as seen from the table; what was learned in this one is not
    63 s old."""
    with SwitchBox(2) as box:
        lib.fdb_set_ageing(box.fdb, 32)  # counted in seconds
        other, snapshot = lib.worker_new(1), lib.snapshot_new(2)
        lib.snapshot_add_bridge(snapshot, box.fdb, bytes(6), 1400)
        lib.worker_publish(other, snapshot)
        box.breathe(advance_ns=500_000_000)
        box.breathe(advance_ns=500_000_000)  # a new second begins
        announce(box, 0, made_up(0, 50))
        lib.worker_breathe(other, 2 * 10**9 - 1000)
        assert len(known(box)) == 50
        lib.worker_publish(other, ffi.NULL)
        lib.worker_breathe(other, box.now_ns)
        lib.worker_free(other)
        lib.snapshot_free(snapshot)
