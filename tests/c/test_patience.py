"""When a worker stops polling: only when somebody else is always ready to run on its CPU."""

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


def test_naps_are_for_streams(tmp_path):
    program = build(tmp_path, "naps.c", packages=["vswitch"], sanitize="undefined")
    assert run(program, timeout_s=20).splitlines() == [
        "a stream is met in naps: 1",
        "naps are tried on who answers: 1",
        "ever less often: 1",
    ]
