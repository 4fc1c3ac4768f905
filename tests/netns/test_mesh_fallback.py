"""Devices that cannot do what trains need: no checksums, no segmentation, no merging.

UDP_SEGMENT then fails with EIO (udp(7)), and datagrams arrive one by one.  The wire of
tests/fakes/meshplace.py, with ethtool.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fakes.daemons import until
from tests.fakes.meshplace import Place, goodput
from tests.fakes.netns import sh
from tests.fakes.wiretap import UNDERLAY, WireTap

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("iperf3") is None or shutil.which("ethtool") is None,
    reason="needs root for network namespaces, iperf3 and ethtool",
)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        made = Place(tmp_path, stack)
        tap = stack.enter_context(WireTap(made.names["a"], "wire", UNDERLAY))
        until(made.connected, "the mesh")
        yield made
        assert [daemon.stop() for daemon in made.daemons] == [0, 0]
        tap.check()


@pytest.mark.parametrize("off", ["tx off", "gso off gro off tso off", "tx off gro off"])
def test_a_stream_over_a_device_without(place: Place, off: str) -> None:
    for letter in "ab":
        sh(f"ip netns exec {place.names[letter]} ethtool -K wire {off}")
    assert goodput(place, "100M", 1) > 0
    assert "send" not in place.drops()
