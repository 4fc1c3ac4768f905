"""Guest images: a kernel and one initramfs made of this machine's packages.

The initramfs holds busybox, the measuring tools with the libraries they link, the kernel
modules a guest's NICs need, and an agent (guest_init.sh) that runs commands from a serial line.
Images are kept under .cache at the root, named by a hash of everything they were made of.
"""

import hashlib
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qperf_suite.errors import UsageError

CACHE = Path(__file__).resolve().parent.parent / ".cache"
AGENT = Path(__file__).with_name("guest_init.sh")
PRELOAD = Path(__file__).with_name("uml_preload.c")
PINGPONG = Path(__file__).with_name("pingpong.c")
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")
PRELOAD_FLAGS = (*FLAGS, "-shared", "-fPIC", "-Wl,-z,now")
PINGPONG_FLAGS = (*FLAGS, "-static")
TOOLS = {
    "qperf": "qperf",
    "mtr": "mtr-tiny",
    "mtr-packet": "mtr-tiny",
    "iperf3": "iperf3",
    "ping": "iputils-ping",
    "ethtool": "ethtool",
}
UML_KERNEL = Path("/usr/bin/linux.uml")
UML_MODULES = Path("/usr/lib/uml/modules")
# ipv6, because qperf's server binds to nothing else first; the order of loading is in modules.dep.
MODULES = ("ipv6", "8021q", "virtio_net", "virtio_pci")
KERNEL_PACKAGE = "linux-image-cloud-amd64"


@dataclass(frozen=True)
class Image:
    """What a guest boots: both paths exist."""

    kernel: Path
    initramfs: Path


@dataclass(frozen=True)
class Entry:
    """One member of an initramfs: mode with its file type, and a file's or symlink's content."""

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def uml_image() -> Image:
    """The image of a User Mode Linux guest, built on first use."""
    if not UML_KERNEL.exists():
        raise UsageError(f"{UML_KERNEL} is missing: apt-get install user-mode-linux")
    versions = sorted(path.name for path in UML_MODULES.iterdir())
    if not versions:
        raise UsageError(f"{UML_MODULES} is empty: reinstall user-mode-linux")
    return Image(UML_KERNEL, _initramfs(UML_MODULES / versions[-1]))


def uml_preload() -> Path:
    """The library that mends User Mode Linux (uml_preload.c), compiled on first use."""
    return _compiled(PRELOAD, "uml-preload.so", PRELOAD_FLAGS)


def pingpong() -> Path:
    """The guests' pingpong.c, linked statically, compiled on first use."""
    return _compiled(PINGPONG, "pingpong", PINGPONG_FLAGS)


def qemu_image() -> Image:
    """The image of a QEMU guest: Debian's cloud kernel, fetched and unpacked, not installed."""
    root = CACHE / "linux-cloud"
    if not list(root.glob("boot/vmlinuz-*")):
        _unpack_kernel(root)
    kernel = sorted(root.glob("boot/vmlinuz-*"))[-1]
    version = kernel.name.removeprefix("vmlinuz-")
    return Image(kernel, _initramfs(root / "lib/modules" / version))


def write_newc(entries: Iterable[Entry]) -> bytes:
    """An uncompressed cpio archive in the "newc" form (kernel: driver-api/early-userspace)."""
    out = bytearray()
    trailer = Entry("TRAILER!!!", 0)
    for inode, entry in enumerate([*entries, trailer], start=1):
        name = entry.name.encode() + b"\0"
        fields = (
            *(inode, entry.mode, 0, 0, 1, 0, len(entry.content)),
            *(0, 0, *entry.device, len(name), 0),
        )
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        out += b"\0" * (-len(out) % 4)
        out += entry.content
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def module_closure(modules_dep: str, wanted: Iterable[str]) -> list[str]:
    """Paths of the wanted modules and what they need, in an order in which they can be loaded.

    modules_dep: text of depmod's file, "path: dependency…" in any order.  Modules that do not
    exist are built in, and left out.
    """
    needs: dict[str, list[str]] = {}
    for line in modules_dep.splitlines():
        path, _, rest = line.partition(":")
        needs[path.strip()] = rest.split()
    order: list[str] = []

    def place(path: str) -> None:
        for need in needs.get(path, []):
            if need not in order:
                place(need)
        if path not in order:
            order.append(path)

    for name in wanted:
        for path in needs:
            if re.sub(r"\.ko.*$", "", path.rsplit("/", 1)[-1]).replace("-", "_") == name:
                place(path)
    return order


def compiled(*, uml: bool) -> bool:
    """Whether what guests need is there already, so that no compiler is needed."""
    wanted: list[tuple[Path, str, Sequence[str]]] = [(PINGPONG, "pingpong", PINGPONG_FLAGS)]
    if uml:
        wanted.append((PRELOAD, "uml-preload.so", PRELOAD_FLAGS))
    return all(_kept(*one).exists() for one in wanted)


def _kept(source: Path, name: str, flags: Sequence[str]) -> Path:
    digest = hashlib.sha256(source.read_bytes() + " ".join(flags).encode()).hexdigest()[:16]
    return CACHE / f"{digest}-{name}"


def _compiled(source: Path, name: str, flags: Sequence[str]) -> Path:
    target = _kept(source, name, flags)
    if not target.exists():
        if not shutil.which("gcc"):
            raise UsageError("guests need a compiler: apt-get install gcc libc6-dev")
        CACHE.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f"{os.getpid()}-{target.name}")
        done = subprocess.run(
            ["gcc", *flags, "-o", scratch, source], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            scratch.unlink(missing_ok=True)
            words = done.stderr.strip()[-1000:]
            raise UsageError(f"gcc cannot compile {source.name} (libc6-dev is needed):\n{words}")
        scratch.rename(target)
    return target


def _initramfs(modules: Path) -> Path:
    programs = _programs()
    digest = hashlib.sha256(str(modules).encode())
    for path in (AGENT, Path(__file__), modules / "modules.dep", *programs.values()):
        info = path.stat()
        digest.update(f"{path} {info.st_size} {info.st_mtime_ns}\n".encode())
    target = CACHE / f"initramfs-{digest.hexdigest()[:16]}.cpio"
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        scratch = target.with_suffix(f".{os.getpid()}")
        scratch.write_bytes(write_newc(_entries(programs, modules)))
        scratch.rename(target)
    return target


def missing_packages() -> list[str]:
    """Of the programs that guests have, those of this machine that are not installed."""
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    return missing if shutil.which("busybox") else [*missing, "busybox-static"]


def _programs() -> dict[str, Path]:
    """Path in the guest → file on this machine, for every program and shared library."""
    if missing := missing_packages():
        raise UsageError(f"guests need programs: apt-get install {' '.join(missing)}")
    files = {"bin/busybox": Path(shutil.which("busybox") or ""), "usr/bin/pingpong": pingpong()}
    for tool in TOOLS:
        path = Path(shutil.which(tool) or "")
        files[f"usr/bin/{tool}"] = path
        linked = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/\S+) \(0x", linked):
            files[library.lstrip("/")] = Path(library)
    return files


def _entries(programs: dict[str, Path], modules: Path) -> Iterator[Entry]:
    order = module_closure((modules / "modules.dep").read_text(), MODULES)
    files = {name: path.read_bytes() for name, path in programs.items()}
    files |= {f"modules/{name}": (modules / name).read_bytes() for name in order}
    files["etc/modules"] = "".join(f"/modules/{name}\n" for name in order).encode()
    files["etc/hosts"] = b"127.0.0.1 localhost\n"
    files["etc/services"] = files["etc/protocols"] = b""
    files["init"] = AGENT.read_bytes()
    folders = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    for folder in sorted(folders | {"dev", "proc", "sys", "tmp", "run", "root"}):
        yield Entry(folder, stat.S_IFDIR | 0o755)
    # The kernel opens /dev/console for init before anything is mounted on /dev.
    yield Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    for name, content in sorted(files.items()):
        yield Entry(name, stat.S_IFREG | 0o755, content)
    taken = {name.rsplit("/", 1)[-1] for name in files}
    listed = subprocess.run(
        [programs["bin/busybox"], "--list"], capture_output=True, text=True, check=True
    )
    for applet in sorted(set(listed.stdout.split()) - taken):
        yield Entry(f"bin/{applet}", stat.S_IFLNK | 0o777, b"busybox")


def _unpack_kernel(root: Path) -> None:
    """Download the kernel package that the meta package names, and unpack it under root."""
    show = subprocess.run(
        ["apt-cache", "depends", KERNEL_PACKAGE], capture_output=True, text=True, check=False
    )
    found = re.search(r"Depends: (linux-image-\S+)", show.stdout)
    if not found:
        raise UsageError(f"package {KERNEL_PACKAGE} is not known here: run apt-get update")
    scratch = root.with_name(f"linux-cloud.{os.getpid()}")
    scratch.mkdir(parents=True)
    try:
        subprocess.run(
            ["apt-get", "download", found[1]], cwd=scratch, capture_output=True, check=True
        )
        package = next(scratch.glob("*.deb"))
        subprocess.run(["dpkg", "-x", package, scratch / "root"], check=True)
        for modules in scratch.glob("root/lib/modules/*"):
            depmod = ["busybox", "depmod", "-b", str(scratch / "root"), modules.name]
            subprocess.run(depmod, capture_output=True, check=True)
        (scratch / "root").rename(root)
    except (subprocess.CalledProcessError, StopIteration) as error:
        raise UsageError(f"cannot fetch {found[1]} with apt-get download") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
