"""What threads share in the switch, under ThreadSanitizer."""

from tests.c.build import build, run


def test_workers_and_snapshots(tmp_path):
    program = build(tmp_path, "workers.c", packages=["vswitch"], sanitize="thread")
    assert "frames received" in run(program, timeout_s=120)


def test_queues_that_move_between_workers(tmp_path):
    program = build(tmp_path, "moves.c", packages=["vswitch"], sanitize="thread")
    assert "frames moved" in run(program, timeout_s=120)
