"""Copies of large pieces, in every way that one of them may be made on some CPU."""

from tests.c.build import build, run


def test_every_copy(tmp_path):
    program = build(tmp_path, "copy.c", packages=[], sanitize="undefined")
    lines = run(program, timeout_s=60).splitlines()
    assert lines[0] == "any: 1"
    assert lines[1:] in ([], ["avx2: 1", "intel: 1"])
