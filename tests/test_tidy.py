"""Style and layering, as far as a machine can tell."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("vswitch", "vhost", "mesh", "qperf_suite")
C_LINES_MAX = 400
C_FUNCTION_LINES_MAX = 60
PYTHON_LINES_MAX = 450
COLUMNS_MAX = 100

# What the switch offers to the packages that plug into it.
FOUNDATION = {"vswitch/core/base.h", "vswitch/core/packet.h", "vswitch/core/port.h"}
# Python packages that each package may import beside itself.
MAY_IMPORT = {
    "vswitch": {"vhost", "mesh"},
    "vhost": set(),
    "mesh": set(),
    "qperf_suite": set(),
}
# Protocol modules have no side effects: everything in mesh but these, and these of vhost.
MESH_WITH_IO = {
    "core.py",
    "inquiries.py",
    "keyfile.py",
    "prober.py",
    "service.py",
    "sockets.py",
}
VHOST_SANS_IO = {
    "backend.py",
    "feature_messages.py",
    "log_messages.py",
    "memory_messages.py",
    "messages.py",
    "ring_messages.py",
    "rings.py",
    "session.py",
    "state_messages.py",
}
IO_MODULES = {
    "asyncio",
    "os",
    "random",
    "select",
    "selectors",
    "socket",
    "subprocess",
    "threading",
    "time",
}
ENTRY_POINTS = {"vswitch/cli.py", "qperf_suite/cli.py", "qperf_suite/launch.py"}


def files(pattern: str, *folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob(pattern))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


C_FILES = [*files("*.c", *PACKAGES), *files("*.h", *PACKAGES)]
C_HEADERS = files("*.h", *PACKAGES)
C_TESTS = [*files("*.c", "tests"), *files("*.h", "tests")]
PYTHON = [path for package in PACKAGES for path in (ROOT / package).glob("*.py")]
PYTHON_TESTS = files("*.py", "tests")
SCRIPTS = files("*.py", "scripts")


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=name)


def imports(path: Path) -> Iterator[str]:
    """Full names of all imported modules; what is imported from a package counts as one, too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno}: import by the full name"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


# ---- layering


@each(PYTHON)
def test_python_imports_no_sibling(path: Path) -> None:
    package = path.parent.name
    forbidden = set(PACKAGES) - {package} - MAY_IMPORT[package]
    assert not {module for module in imports(path) if module.split(".")[0] in forbidden}


@each(PYTHON)
def test_only_core_imports_the_data_plane(path: Path) -> None:
    if path.name != "core.py":
        assert "_dataplane" not in set(imports(path))


@each(
    [
        path
        for path in PYTHON
        if (path.parent.name == "mesh" and path.name not in MESH_WITH_IO)
        or (path.parent.name == "vhost" and path.name in VHOST_SANS_IO)
    ]
)
def test_protocols_do_no_io(path: Path) -> None:
    assert not IO_MODULES & {module.split(".")[0] for module in imports(path)}


@each(C_FILES)
def test_c_includes(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    for include in re.findall(r'^#include "([^"]+)"', path.read_text(), re.M):
        if package == "vswitch":
            allowed = include.startswith("vswitch/core/") or "/" not in include
        else:
            allowed = include.startswith(f"{package}/core/") or include in FOUNDATION
        assert allowed, f"{name(path)} includes {include}"


# ---- size


@each([*C_FILES, *C_TESTS])
def test_c_length(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= C_LINES_MAX
    begun = None
    for number, line in enumerate(lines, 1):
        if line == "{":
            begun = number
        elif line == "}" and begun is not None:
            assert number - begun - 1 <= C_FUNCTION_LINES_MAX, f"function at line {begun}"
            begun = None


@each([*PYTHON, *PYTHON_TESTS, *SCRIPTS])
def test_python_length(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= PYTHON_LINES_MAX


# ---- words


C_ONLY_IN_BASE = re.compile(r"\batomic_|__atomic|__sync|\bvolatile\b|\bfence\(")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|raise NotImplementedError")
BARE = re.compile(r"#\s*(type:\s*ignore(\[[^]]*\])?|noqa(:\s*[A-Z0-9, ]+)?)\s*$")
MACHINE = re.compile(r"/(work|root)/\w")


@each([path for path in C_FILES if path.parent.name == "core" and path.name != "base.h"])
def test_memory_order_is_in_one_place(path: Path) -> None:
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(), flags=re.S)
    assert not C_ONLY_IN_BASE.search(code)


@each(
    [
        path
        for path in [*C_FILES, *C_TESTS, *PYTHON, *PYTHON_TESTS, *SCRIPTS]
        if path != Path(__file__)
    ]
)
def test_words(path: Path) -> None:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        where = f"{name(path)}:{number}"
        assert not UNFINISHED.search(line), f"{where}: unfinished"
        assert not MACHINE.search(line), f"{where}: a path of one machine"
        assert len(line) <= COLUMNS_MAX, f"{where}: {len(line)} columns"
        if path.suffix == ".py":
            assert not BARE.search(line), f"{where}: say why"
            assert not re.search(r"except( Exception)?:", line), f"{where}: catches too much"
            assert path not in PYTHON_TESTS or "time.sleep(" not in line, f"{where}: sleeps"


@each(C_HEADERS)
def test_headers_tell_their_threads(path: Path) -> None:
    comment = path.read_text().split("*/")[0]
    assert re.search(r"^ \* Threads:", comment, re.M), "who may call what, and when"


@each([path for path in C_HEADERS if path.name == "abi.h"])
def test_what_cffi_would_misread(path: Path) -> None:
    assert not re.search(
        r"_Alignas|_Atomic|#pragma|__attribute__|_Static_assert|^#if", path.read_text(), re.M
    )


# ---- nothing lies about


def test_every_python_file_is_used() -> None:
    used = {module for path in [*PYTHON, *PYTHON_TESTS, *SCRIPTS] for module in imports(path)}
    dead = [
        name(path)
        for path in PYTHON
        if path.name != "__init__.py"
        and name(path) not in ENTRY_POINTS
        and f"{path.parent.name}.{path.stem}" not in used
    ]
    assert not dead


def test_every_header_is_used() -> None:
    includes = {
        include.split("/")[-1]
        for path in [*C_FILES, *C_TESTS]
        for include in re.findall(r'^#include "([^"]+)"', path.read_text(), re.M)
    }
    assert not [
        name(path)
        for path in C_HEADERS
        if path.name not in includes and not path.name.endswith("_abi.h")
    ]


@each(
    [
        path
        for path in [ROOT / "ARCHITECTURE.md", ROOT / "README.md", *files("*.md", "docs")]
        if path.exists()
    ]
)
def test_paths_in_documents_exist(path: Path) -> None:
    text = path.read_text()
    roots = (*PACKAGES, "tests", "scripts", "docs")
    named = re.findall(rf"(?<![\w/.-])((?:{'|'.join(roots)})/[\w./-]*\w)", text)
    named += [
        f"{path.parent.relative_to(ROOT)}/{link}"
        for link in re.findall(r"\]\(([\w./-]+\.\w+)(?:#[\w-]*)?\)", text)
    ]
    missing = [one for one in named if not (ROOT / one).exists()]
    assert not missing
