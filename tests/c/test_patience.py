"""When a worker stops polling, and what it does then."""

from tests.c.build import build, run


def test_who_wants_the_cpu(tmp_path):
    program = build(tmp_path, "patience.c", packages=["vswitch"], sanitize="undefined")
    assert run(program, timeout_s=20).splitlines() == [
        "idle and alone: 0",
        "many queues: 0",
        "busy but for moments: 0",
        "a guest that answers: 0",
        "a guest that is always ready: 1",
        "alone it yields now and then: 1",
        "beside others in every breath: 1",
    ]


def test_each_traffic_finds_its_way(tmp_path):
    program = build(tmp_path, "ways.c", packages=["vswitch"], sanitize="undefined")
    assert run(program, timeout_s=60).splitlines() == [
        "a stream is met in long naps: 1",
        "one of a small window in short ones: 1",
        "beside work, who answers is waited for: 1",
        "where that takes long, it is polled for: 1",
        "now and then all are tried: 1",
        "bursts find their way, too: 1",
    ]
