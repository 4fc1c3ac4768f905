"""Workers that never sleep: quiet queues are looked at in turns, and none is forgotten."""

from _dataplane import ffi, lib

from tests.fakes.switchbox import SwitchBox, mac_bytes

PORTS = 40
QUIET_NS = 300_000


def frame(port: int) -> bytes:
    return mac_bytes("ff:ff:ff:ff:ff:ff") + bytes([2, 0, 0, 0, 0, port]) + b"\x88\xb5" + bytes(46)


def looks(box: SwitchBox) -> list[int]:
    """How often each port's queue was found empty."""
    counters = ffi.new("struct rxq_counters *")
    found = []
    for port in box.ports:
        lib.rxq_counters_read(port.c_rxq, counters)
        found.append(counters.empty)
    return found


def test_quiet_queues_are_looked_at_in_turns() -> None:
    with SwitchBox(ports=PORTS) as box:
        lib.snapshot_set_idle(box.snapshot, lib.IDLE_POLL)
        for _ in range(3):
            box.breathe(advance_ns=QUIET_NS)
        before = looks(box)
        for _ in range(10):
            box.breathe(advance_ns=1000)
        assert looks(box) == before  # none is visited as a busy one is
        for speaker in (0, 7, PORTS - 1):
            box.ports[speaker].send(frame(speaker))
            breaths = 0
            while box.breathe(advance_ns=1000) == 0:
                breaths += 1
            assert breaths <= PORTS // 8
            for port in box.ports:
                heard = [] if port.id == speaker else [frame(speaker)]
                assert [data for _, data in port.receive_raw()] == heard


def test_busy_and_quiet_change_places() -> None:
    with SwitchBox(ports=PORTS) as box:
        lib.snapshot_set_idle(box.snapshot, lib.IDLE_POLL)
        for round_ in range(60):
            for port in box.ports[round_ % PORTS :: 7]:
                port.send(frame(port.id))
            sent = len(box.ports[round_ % PORTS :: 7])
            moved = sum(box.breathe(advance_ns=40_000) for _ in range(8))
            assert moved == sent
            for port in box.ports:
                port.receive_raw()
