"""docs/hostile.md names every test of this folder, and no other."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
TABLE = HERE.parents[1] / "docs" / "hostile.md"


def named() -> set[str]:
    """Tests that the rows of the document name; a row without one is a promise."""
    names: set[str] = set()
    for line in TABLE.read_text().splitlines():
        if not line.startswith("|") or line.startswith(("|---", "| identifier")):
            continue
        of_row = re.findall(r"`(test_\w+)`", line)
        assert of_row, f"no test in: {line}"
        names.update(of_row)
    return names


def defined() -> set[str]:
    return {
        node.name
        for path in HERE.glob("test_*.py")
        if path != Path(__file__)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_row_has_a_test_and_every_test_a_row() -> None:
    assert named() - defined() == set(), "named, but not there"
    assert defined() - named() == set(), "there, but not named"
