"""Workers: what their threads share, under ThreadSanitizer; queues that never sleep."""

from tests.c.build import build, run


def test_workers_and_snapshots(tmp_path):
    program = build(tmp_path, "workers.c", packages=["vswitch"], sanitize="thread")
    assert "frames received" in run(program, timeout_s=120)


def test_queues_that_move_between_workers(tmp_path):
    program = build(tmp_path, "moves.c", packages=["vswitch"], sanitize="thread")
    assert "frames moved" in run(program, timeout_s=120)


def test_a_queue_that_passes_everything_on_does_not_stay_quiet(tmp_path):
    program = build(tmp_path, "quiet.c", packages=["vswitch"], sanitize="undefined")
    assert run(program, timeout_s=20).splitlines() == [
        "polled as busy: 1",
        "all counted: 1",
        "others that moved: 0",
    ]
