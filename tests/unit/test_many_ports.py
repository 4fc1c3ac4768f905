"""A daemon with many guests: what they cost while they are silent, and that each hears all."""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fakes.daemons import Daemon, running, until
from tests.fakes.frontend import FrontEnd
from tests.fakes.ram import Ram

GUESTS = 64
BROADCAST = b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("many")


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[Daemon]:
    ports = [
        f'[bridges.br0.ports.vm{i}]\ntype = "vhost-user"\nmode = "server"\npath = "vm{i}.sock"\n'
        for i in range(GUESTS)
    ]
    cpus = sorted(os.sched_getaffinity(0))[:2]
    head = f'control = "control.sock"\n[workers]\ncpus = {cpus}\n[bridges.br0]\n'
    file = folder / "vsw.toml"
    file.write_text(head + "".join(ports))
    with running(file) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def guests(daemon: Daemon, folder: Path) -> Iterator[list[FrontEnd]]:
    moment = threading.Event()
    with ExitStack() as stack:
        made = []
        for i in range(GUESTS):
            guest = FrontEnd(lambda: void(moment.wait(0.001)), Ram([(0x1000_0000, 1 << 20)]), 16)
            stack.callback(guest.close)
            guest.connect(str(folder / f"vm{i}.sock"))
            guest.boot()
            guest.post(16)
            made.append(guest)
        yield made


def void(_: object) -> None:
    return None


def test_silent_guests_cost_less_than_a_percent_of_a_cpu(
    daemon: Daemon, guests: list[FrontEnd]
) -> None:
    ports = daemon.ask("ports")
    assert [port["state"] for port in ports] == ["connected"] * GUESTS
    served = {worker for port in ports for worker in port["workers"]}
    assert served == set(range(min(2, len(os.sched_getaffinity(0)))))
    seconds = 3.0
    before = daemon.cpu_s()
    threading.Event().wait(seconds)
    tick_s = 0.01  # what the kernel counts in
    assert daemon.cpu_s() - before < 0.01 * seconds + tick_s


def test_a_silent_guest_speaks_and_all_hear_it(guests: list[FrontEnd]) -> None:
    for speaker in (0, GUESTS - 1):
        guests[speaker].transmit(BROADCAST + bytes([speaker]) * 1400)
        os.eventfd_write(guests[speaker].rings[1].kick, 1)
        for i, guest in enumerate(guests):
            if i != speaker:
                heard: list[bytes] = []
                until(lambda g=guest, h=heard: h.extend(g.frames()) or len(h) > 0, f"guest {i}")
                assert heard == [BROADCAST + bytes([speaker]) * 1400]
