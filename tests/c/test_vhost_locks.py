"""What workers share in a vhost port, under ThreadSanitizer."""

from pathlib import Path

from tests.c.build import build, run


def test_workers_that_transmit_to_one_guest(tmp_path: Path) -> None:
    program = build(tmp_path, "vhost_locks.c", packages=["vswitch", "vhost"], sanitize="thread")
    assert "frames received" in run(program, timeout_s=120)
