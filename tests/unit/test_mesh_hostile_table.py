"""docs/hostile-mesh.md names tests that exist, at least one in each row."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
TABLE = TESTS.parent / "docs" / "hostile-mesh.md"


def named() -> set[str]:
    names: set[str] = set()
    for line in TABLE.read_text().splitlines():
        if not line.startswith("|") or line.startswith(("|---", "| what |", "| identifier")):
            continue
        of_row = re.findall(r"`((?:mesh_\w+\.c:)?test_\w+)`", line)
        assert of_row, f"no test in: {line}"
        names.update(of_row)
    return names


def defined() -> set[str]:
    python = {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    main = re.compile(r"^    (test_\w+)\(\);$|^        (test_\w+)\(\);$", re.MULTILINE)
    c = {
        f"{path.name}:{first or second}"
        for path in (TESTS / "c").glob("mesh_*.c")
        for first, second in main.findall(path.read_text())
    }
    return python | c


def test_every_row_has_tests_that_exist() -> None:
    assert named() - defined() == set()
