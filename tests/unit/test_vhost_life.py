"""What outlives a switch: features that guests took, and where packed rings stand."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.frontend import MERGEABLE, FrontEnd
from tests.fakes.vhostbox import VhostBox
from tests.unit.test_vhost_port import listener, pump_until
from vhost import messages as m
from vhost import port
from vhost.messages import Feature
from vhost.statefile import file_name


def notes(box: VhostBox) -> list[str]:
    status: dict[str, Any] = box.ports[0].status()
    return list(status["notes"])


def without(monkeypatch: pytest.MonkeyPatch, feature: Feature) -> None:
    """This switch offers less than the one before."""
    monkeypatch.setattr(m, "OFFERED_FEATURES", m.OFFERED_FEATURES & ~feature)


def test_a_switch_that_offers_less_says_why_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with VhostBox(1, folder=tmp_path) as box:
        box.front(0).boot(MERGEABLE | Feature.EVENT_IDX)
        assert notes(box) == []
    without(monkeypatch, Feature.EVENT_IDX)
    with VhostBox(1, folder=tmp_path) as box:
        front = box.front(0)
        front.settle()
        (note,) = notes(box)
        assert "took EVENT_IDX from a former switch" in note
        box.fronts.remove(front)
        front.close()
        for _ in range(3):
            box.pump()
        assert notes(box) == [note], "while nobody is connected, too"
        box.front(0).boot(MERGEABLE)
        assert notes(box) == [], "another guest, which takes what there is"
    with VhostBox(1, folder=tmp_path) as box:
        box.front(0).settle()
        assert notes(box) == []


def test_a_switch_that_offers_more_has_nothing_to_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, VhostBox(1, folder=tmp_path) as box:
        without(patch, Feature.EVENT_IDX)
        box.front(0).boot()
    with VhostBox(1, folder=tmp_path) as box:
        box.front(0).boot()
        assert notes(box) == []


def test_a_front_end_that_goes_at_once_is_not_called_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port, "RETRY_S", 3600.0)
    box = VhostBox(1, mode="client", folder=tmp_path)
    with box, listener(box.ports[0].config.path) as sock:
        box.ports[0].start()
        front = FrontEnd(box.pump)
        front.accept(sock)
        front.settle()
        front.close()
        pump_until(box, "connecting")
        for _ in range(10):
            box.pump()
        assert box.ports[0].status()["connections"] == 1


def test_a_port_works_without_a_state_file(tmp_path: Path) -> None:
    with VhostBox(1, folder=tmp_path) as box:
        os.mkdir(tmp_path / file_name(box.ports[0].config.path))
        box.front(0).boot()
        (note,) = notes(box)
        assert "Is a directory: packed rings will not outlive the switch" in note


def test_a_port_nobody_used_leaves_no_file(tmp_path: Path) -> None:
    with VhostBox(1, folder=tmp_path) as box:
        box.front(0).settle()
        assert (tmp_path / file_name(box.ports[0].config.path)).exists()
    assert list(tmp_path.iterdir()) == []
