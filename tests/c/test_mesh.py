"""The mesh's data plane: each C main of this folder that is named mesh_*."""

import pytest

from tests.c.build import build, run

MEMORY = "address,undefined"


SOURCES = ["wire", "faults", "gate", "hostile", "lanes", "probe", "relay", "runs", "send", "trace"]


@pytest.mark.parametrize("source", SOURCES)
def test_records(tmp_path, source):
    program = build(tmp_path, f"mesh_{source}.c", packages=["vswitch", "mesh"], sanitize=MEMORY)
    assert run(program, timeout_s=120).endswith("ok\n")


@pytest.mark.parametrize("source", ["mesh_threads.c", "mesh_relay_threads.c"])
def test_lanes_and_rekeys(tmp_path, source):
    program = build(tmp_path, source, packages=["vswitch", "mesh"], sanitize="thread")
    assert "packets" in run(program, timeout_s=300)
