"""What is mended in User Mode Linux, without it."""

import os
import subprocess

from qperf_suite.image import uml_preload
from tests.c.build import build


def test_a_lost_clock_is_set_going(tmp_path):
    program = build(tmp_path, "lost_clock.c", packages=[], sanitize="undefined")
    environment = {**os.environ, "LD_PRELOAD": str(uml_preload())}
    done = subprocess.run(
        [str(program)], capture_output=True, text=True, timeout=20, env=environment, check=False
    )
    assert done.stdout.splitlines() == ["set: 0", "just fired: 0", "lost: 1"], done.stderr
