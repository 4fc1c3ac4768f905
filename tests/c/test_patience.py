"""When a worker stops polling, and what it does then."""

from pathlib import Path

import pytest

from tests.c.build import build, run

WHO_WANTS_THE_CPU = [
    "idle and alone: 0",
    "many queues: 0",
    "busy but for moments: 0",
    "a guest that answers: 0",
    "a guest that is always ready: 1",
    "alone it yields now and then: 1",
    "beside others in every breath: 1",
]
EACH_TRAFFIC_FINDS_ITS_WAY = [
    "a stream is met in long naps: 1",
    "one of a small window in short ones: 1",
    "beside work, who answers is waited for: 1",
    "where that takes long, it is polled for: 1",
    "now and then all are tried: 1",
    "bursts find their way, too: 1",
]


@pytest.mark.parametrize(
    ("source", "lines"),
    [("patience.c", WHO_WANTS_THE_CPU), ("ways.c", EACH_TRAFFIC_FINDS_ITS_WAY)],
)
def test_patience(tmp_path: Path, source: str, lines: list[str]) -> None:
    program = build(tmp_path, source, packages=["vswitch"], sanitize="undefined")
    assert run(program, timeout_s=60).splitlines() == lines
