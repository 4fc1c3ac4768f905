"""Wrong configurations: each is answered once, with file, key and remedy, and starts nothing.

The tables go through the command itself: "vsw check" for most, "vsw run" for what only running can
find out.  Where permission is the point and we are root, the command runs as nobody.
"""

import os
import pwd
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.configs import OWN_SEED, PEER_SEED, RIGHT, changed, public, write_files
from tests.fakes.daemons import as_nobody


def nothing(_: Path) -> None:
    """No change to the files beside the configuration."""


@dataclass(frozen=True)
class Case:
    """text: the configuration.  where: what names the key or line.  says: what else it says."""

    name: str
    text: str | bytes
    where: str
    says: tuple[str, ...]
    before: Callable[[Path], object] = nothing


def peer(line: str) -> str:
    """RIGHT with one more peer, which has this line."""
    return f'{RIGHT}\n[[mesh.peers]]\npublic_key = "{public(bytes([9]) * 32)}"\n{line}\n'


def port(lines: str) -> str:
    """RIGHT with one more port."""
    return f"{RIGHT}\n[bridges.br0.ports.more]\n{lines}\n"


def cut_key(path: Path) -> None:
    path.write_text("AAAA\n")


CPU = min(os.sched_getaffinity(0))

# A table: one case per entry, however long its lines would like to be.
# fmt: off
CASES = [
    # ---- form
    Case("no equals sign", 'control "x"\n', "line 1", ("not TOML", "correct that line")),
    Case("unfinished string", RIGHT + 'x = "', "line ", ("not TOML",)),
    Case("key twice", changed("mtu = 1400", "mtu = 1400\nmtu = 1500"), "line ", ("not TOML",)),
    Case("not UTF-8", b"control = \"\xff\"\n", "line 1", ("UTF-8",)),
    Case("empty file", "", "bridges", ("no bridge", "[bridges.br0]")),
    # ---- unknown keys
    Case("unknown at top", "contrl = 'x'\n" + RIGHT, "contrl", ('"control"?',)),
    Case("unknown in workers", changed("idle =", "idel ="), "workers.idel", ('"idle"?',)),
    Case("unknown in bridge", changed("mtu =", "mut ="), "bridges.br0.mut", ('"mtu"?',)),
    Case("unknown in port", changed('mode = "client"', 'mode = "client"\npth = 1'),
         "bridges.br0.ports.vm1.pth", ('"path"?',)),
    Case("unknown in mesh", changed("listen =", "listn = 1\nlisten ="), "mesh.listn",
         ('"listen"?',)),
    Case("unknown in peer", peer("endpoint = []"), "mesh.peers[1].endpoint", ('"endpoints"?',)),
    Case("unknown without likeness", changed("mtu =", "zzz ="), "bridges.br0.zzz",
         ("known keys", "subnets")),
    Case("server key in client", changed('mode = "client"', 'mode = "client"\nsocket_mode="0600"'),
         "bridges.br0.ports.vm1.socket_mode", ("server", "remove")),
    Case("vhost key in tap", port('type = "tap"\ninterface = "t0"\npath = "x"'),
         "bridges.br0.ports.more.path", ("unknown key",)),
    # ---- missing keys
    Case("no type", port('interface = "t0"'), "bridges.br0.ports.more.type", ("missing", "tap")),
    Case("no path", port('type = "vhost-user"\nmode = "client"'),
         "bridges.br0.ports.more.path", ("missing", "socket")),
    Case("no mode", port('type = "vhost-user"\npath = "x"'), "bridges.br0.ports.more.mode",
         ("missing", '"client" or "server"')),
    Case("no interface", port('type = "tap"'), "bridges.br0.ports.more.interface", ("missing",)),
    Case("no listen", changed('listen = "127.0.0.1:7400"', ""), "mesh.listen", ("missing",)),
    Case("no private key", changed('private_key_file = "own.key"', ""), "mesh.private_key_file",
         ("missing", "vsw keygen")),
    Case("no public key", RIGHT + "[[mesh.peers]]\n", "mesh.peers[1].public_key",
         ("missing", "vsw keygen")),
    # ---- wrong types
    Case("control is a number", "control = 5\n[bridges.br0]\n", "control", ("string", "integer")),
    Case("cpus is a number", changed("cpus = [", "cpus = 0 #["), "workers.cpus",
         ("array", "integer")),
    Case("cpu is a string", "[workers]\ncpus = ['0']\n[bridges.br0]\n", "workers.cpus[0]",
         ("integer", "without quotes")),
    Case("cpu is a boolean", "[workers]\ncpus = [true]\n[bridges.br0]\n", "workers.cpus[0]",
         ("integer",)),
    Case("mtu is a string", changed("mtu = 1400", 'mtu = "1400"'), "bridges.br0.mtu",
         ("integer", "1400 without quotes")),
    Case("addresses is a string", port('type="tap"\ninterface="t0"\naddresses="10.5.0.9/32"'),
         "bridges.br0.ports.more.addresses", ("array", '["10.5.0.9/32"]')),
    Case("bridges is an array", "bridges = []\n", "bridges", ("table",)),
    Case("port is a string", "[bridges.br0.ports]\nvm1 = 'x'\n", "bridges.br0.ports.vm1",
         ("table",)),
    Case("peers is a table", changed("[[mesh.peers]]", "[mesh.peers]"), "mesh.peers",
         ("array", "table")),
    Case("socket mode is a number", changed('socket_mode = "0660"', "socket_mode = 660"),
         "bridges.br0.ports.vm2.socket_mode", ("string", '"660"')),
    # ---- wrong values
    Case("unknown type", port('type = "veth"'), "bridges.br0.ports.more.type",
         ('"veth"', '"vhost-user" or "tap"')),
    Case("unknown mode", changed('mode = "server"', 'mode = "serve"'),
         "bridges.br0.ports.vm2.mode", ('"client" or "server"',)),
    Case("unknown idle", changed('"adaptive"', '"sleep"'), "workers.idle", ('"poll"',)),
    Case("empty path", changed('path = "vm1.sock"', 'path = ""'), "bridges.br0.ports.vm1.path",
         ("empty",)),
    Case("path of 108 bytes", changed("vm1.sock", "/tmp/" + "x" * 103),
         "bridges.br0.ports.vm1.path", ("108 bytes", "107", "shorter")),
    Case("path of 108 bytes in UTF-8", changed("vm1.sock", "/tmp/a" + "é" * 51),
         "bridges.br0.ports.vm1.path", ("108 bytes",)),
    Case("control path too long", changed("control.sock", "/tmp/" + "x" * 120), "control",
         ("125 bytes",)),
    Case("mode has an 8", changed('"0660"', '"0680"'), "bridges.br0.ports.vm2.socket_mode",
         ("octal",)),
    Case("mode is more than permission", changed('"0660"', '"4660"'),
         "bridges.br0.ports.vm2.socket_mode", ("octal",)),
    Case("mac is multicast", changed("02:00:00:00:00:02", "03:00:00:00:00:02"),
         "bridges.br0.ports.vm2.mac", ("one machine",)),
    Case("mac is short", changed("02:00:00:00:00:02", "02:00:00:00:02"),
         "bridges.br0.ports.vm2.mac", ("not a MAC", "02:00:00:00:00:01")),
    Case("no such offload", changed('"0660"', '"0660"\noffloads = ["csum", "lro"]'),
         "bridges.br0.ports.vm2.offloads[1]", ('"lro"', '"tso4"')),
    Case("offload twice", changed('"0660"', '"0660"\noffloads = ["csum", "csum"]'),
         "bridges.br0.ports.vm2.offloads[1]", ("twice",)),
    Case("TSO without checksums", changed('"0660"', '"0660"\noffloads = ["tso4"]'),
         "bridges.br0.ports.vm2.offloads[0]", ('"tso4"', 'add "csum"')),
    Case("ECN without TSO", changed('"0660"', '"0660"\noffloads = ["ecn", "csum"]'),
         "bridges.br0.ports.vm2.offloads[0]", ('add "tso4" or "tso6"',)),
    Case("offloads as a word", changed('"0660"', '"0660"\noffloads = "csum"'),
         "bridges.br0.ports.vm2.offloads", ("an array",)),
    Case("mtu too small", changed("mtu = 1400", "mtu = 575"), "bridges.br0.mtu", ("576",)),
    Case("mtu too large", changed("mtu = 1400", "mtu = 65536"), "bridges.br0.mtu", ("9216",)),
    Case("mtu too small for IPv6", changed("mtu = 1400", "mtu = 1279"), "bridges.br0.mtu",
         ("IPv6", "1280")),
    Case("no ageing", changed("ageing_seconds = 300", "ageing_seconds = 0"),
         "bridges.br0.ageing_seconds", ("from 1",)),
    Case("MAC table too large", changed("mac_table_size = 1024", "mac_table_size = 100000000"),
         "bridges.br0.mac_table_size", ("1000000",)),
    Case("bridge with an odd name", '[bridges."a/b"]\n', "bridges.a/b", ("letters",)),
    Case("interface too long", port('type = "tap"\ninterface = "abcdefghijklmnop"'),
         "bridges.br0.ports.more.interface", ("15 bytes", "shorter")),
    Case("interface with a slash", port('type = "tap"\ninterface = "a/b"'),
         "bridges.br0.ports.more.interface", ("letters",)),
    Case("interface that is no tap", port('type = "tap"\ninterface = "lo"'),
         "bridges.br0.ports.more.interface", ("not a tap", "another name")),
    # ---- CPUs
    Case("CPU that does not exist", "[workers]\ncpus = [4095]\n[bridges.br0]\n", "workers.cpus",
         ("4095", "does not exist", "choose from")),
    Case("negative CPU", "[workers]\ncpus = [-1]\n[bridges.br0]\n", "workers.cpus",
         ("-1", "from 0")),
    Case("CPU twice", "[workers]\ncpus = [0, 0]\n[bridges.br0]\n", "workers.cpus", ("twice",)),
    Case("a port's CPU without a worker", port('type = "tap"\ninterface = "t0"\ncpus = [4095]'),
         "bridges.br0.ports.more.cpus", ("no worker", "workers.cpus")),
    Case("a port's CPU twice", port('type = "tap"\ninterface = "t0"\ncpus = [0, 0]'),
         "bridges.br0.ports.more.cpus", ("twice",)),
    Case("no worker left for others",
         changed('mode = "client"', f'mode = "client"\ncpus = [{CPU}]'),
         "bridges.br0.ports.vm2.cpus", ("other ports", "workers.cpus")),
    Case("no CPU", "[workers]\ncpus = []\n[bridges.br0]\n", "workers.cpus", ("at least one",)),
    # ---- addresses
    Case("no prefix", changed('"10.5.0.1/32"', '"10.5.0.300/32"'),
         "bridges.br0.ports.vm1.addresses[0]", ("10.5.0.1/32",)),
    Case("host bits", changed('"10.5.0.0/24"', '"10.5.0.1/24"'), "bridges.br0.subnets[0]",
         ("behind its prefix", "10.5.0.0/24")),
    Case("IPv6 host bits", changed('"fd00:5::/64"', '"fd00:5::1/64"'), "bridges.br0.subnets[1]",
         ("fd00:5::/64",)),
    Case("prefix too long for IPv4", changed('"10.5.0.1/32"', '"10.5.0.1/64"'),
         "bridges.br0.ports.vm1.addresses[0]", ("not an address prefix",)),
    Case("mapped address", changed('"10.5.0.1/32"', '"::ffff:10.5.0.1/128"'),
         "bridges.br0.ports.vm1.addresses[0]", ("write 10.5.0.1",)),
    Case("multicast address", changed('"10.5.0.1/32"', '"224.0.0.5/32"'),
         "bridges.br0.ports.vm1.addresses[0]", ("224.0.0.5",)),
    Case("address twice", changed('"10.5.0.1/32"', '"10.5.0.1/32", "10.5.0.1"'),
         "bridges.br0.ports.vm1.addresses[1]", ("twice",)),
    Case("two ports, one address", port('type="tap"\ninterface="t0"\naddresses=["10.5.0.1/32"]'),
         "bridges.br0.ports.more.addresses[0]", ("overlaps", "bridges.br0.ports.vm1.addresses[0]")),
    Case("port inside a port", port('type="tap"\ninterface="t0"\naddresses=["10.5.0.0/30"]'),
         "addresses[0]", ("overlaps 10.5.0.0/30", "one owner")),
    Case("port and peer", changed('"10.5.0.2/32"', '"10.5.0.1/32"'), "mesh.peers[0].addresses[0]",
         ("overlaps", "bridges.br0.ports.vm1.addresses[0]")),
    Case("peer inside a peer", peer('addresses = ["10.5.0.0/28"]'), "addresses[0]", ("overlaps",)),
    Case("IPv6 port and peer", changed('"10.5.0.2/32"', '"fd00:5::/96"'),
         "bridges.br0.ports.vm1.addresses[1]", ("overlaps fd00:5::/96",)),
    Case("two gateways", peer('addresses = ["0.0.0.0/0"]').replace(
        '"10.5.0.2/32"', '"0.0.0.0/0"'), "mesh.peers[1].addresses[0]", ("overlaps",)),
    Case("bridges share a subnet", RIGHT + "[bridges.br1]\nsubnets = ['10.5.0.128/25']\n",
         "bridges.br1.subnets[0]", ("overlaps 10.5.0.0/24",)),
    # ---- sockets and interfaces
    Case("two ports, one socket", changed("vm2.sock", "vm1.sock"), "bridges.br0.ports.vm2.path",
         ("already used by bridges.br0.ports.vm1.path",)),
    Case("port on the control socket", changed("vm2.sock", "./control.sock"),
         "bridges.br0.ports.vm2.path", ("already used by control",)),
    Case("two ports, one interface", port('type="tap"\ninterface="t0"') +
         '[bridges.br0.ports.again]\ntype="tap"\ninterface="t0"\n',
         "bridges.br0.ports.again.interface", ("already used",)),
    Case("missing directory", changed("vm1.sock", "none/vm1.sock"), "bridges.br0.ports.vm1.path",
         ("no directory", "mkdir -p")),
    Case("missing directory for control", changed("control.sock", "none/c.sock"), "control",
         ("no directory", "mkdir -p")),
    Case("directory is a file", changed("vm1.sock", "own.key/vm1.sock"),
         "bridges.br0.ports.vm1.path", ("own.key", "correct the path")),
    Case("server path is a file", changed("vm2.sock", "own.key"), "bridges.br0.ports.vm2.path",
         ("not a socket", "remove it")),
    Case("client path is a file", changed("vm1.sock", "own.key"), "bridges.br0.ports.vm1.path",
         ("not a socket",)),
    Case("unknown group", changed('"0660"', '"0660"\nsocket_group = "no-such-group"'),
         "bridges.br0.ports.vm2.socket_group", ("no-such-group", "existing group")),
    # ---- mesh
    Case("listen without port", changed('"127.0.0.1:7400"', '"127.0.0.1"'), "mesh.listen",
         ("127.0.0.1", "7400")),
    Case("listen on a name", changed('"127.0.0.1:7400"', '"localhost:7400"'), "mesh.listen",
         ("localhost", "names")),
    Case("port 65536", changed('"127.0.0.1:7400"', '"127.0.0.1:65536"'), "mesh.listen",
         ("65536", "65535")),
    Case("port 0", changed('"127.0.0.2:7400"', '"127.0.0.2:0"'), "mesh.peers[0].endpoints[0]",
         ("port 0",)),
    Case("IPv6 without brackets", changed('"127.0.0.2:7400"', '"::1:7400"'),
         "mesh.peers[0].endpoints[0]", ("[2001:db8::1]:7400",)),
    Case("IPv6 endpoint, IPv4 socket", changed('"127.0.0.2:7400"', '"[::1]:7400"'),
         "mesh.peers[0].endpoints[0]", ("cannot be reached", "[::]:7400")),
    Case("endpoint is a group", changed('"127.0.0.2:7400"', '"224.0.0.1:7400"'),
         "mesh.peers[0].endpoints[0]", ("group",)),
    Case("endpoint is any address", changed('"127.0.0.2:7400"', '"0.0.0.0:7400"'),
         "mesh.peers[0].endpoints[0]", ("0.0.0.0",)),
    Case("endpoint twice", changed('"127.0.0.2:7400"', '"127.0.0.2:7400", "127.0.0.2:7400"'),
         "mesh.peers[0].endpoints[1]", ("twice",)),
    Case("key is not base64", changed(public(PEER_SEED), "!" * 44), "mesh.peers[0].public_key",
         ("base64", "44 characters")),
    Case("key is short", changed(public(PEER_SEED), "AAAA"), "mesh.peers[0].public_key",
         ("3 bytes", "32")),
    Case("key is of low order", changed(public(PEER_SEED), "A" * 43 + "="),
         "mesh.peers[0].public_key", ("Ed25519",)),
    Case("peer is ourselves", changed(public(PEER_SEED), public(OWN_SEED)),
         "mesh.peers[0].public_key", ("own key", "other node")),
    Case("peer twice", RIGHT + f'[[mesh.peers]]\npublic_key = "{public(PEER_SEED)}"\n',
         "mesh.peers[1].public_key", ("twice", "into one")),
    Case("via a stranger", peer(f'via = "{public(bytes([8]) * 32)}"'), "mesh.peers[1].via",
         ("no peer has this public key", "add the node in between")),
    Case("via the peer itself", peer(f'via = "{public(bytes([9]) * 32)}"'), "mesh.peers[1].via",
         ("the peer itself", "endpoints instead")),
    Case("via ourselves", peer(f'via = "{public(OWN_SEED)}"'), "via", ("this node itself",)),
    Case("via in a circle", peer(f'via = "{public(PEER_SEED)}"').replace(
         'endpoints = ["127.0.0.2:7400"]', f'via = "{public(bytes([9]) * 32)}"'),
         "mesh.peers[0].via", ("behind itself", "give one of them endpoints")),
    Case("a number of 65 bits", changed("mtu = 1400", f"mtu = {1 << 64}"), "bridges.br0.mtu",
         ("more than 64 bits",)),
    Case("no private key file", RIGHT, "mesh.private_key_file",
         ("does not exist", "vsw keygen"), lambda d: (d / "own.key").unlink()),
    Case("private key for all to read", RIGHT, "mesh.private_key_file", ("0644", "chmod 600"),
         lambda d: (d / "own.key").chmod(0o644)),
    Case("private key cut short", RIGHT, "mesh.private_key_file", ("3 bytes", "32"),
         lambda d: cut_key(d / "own.key")),
    Case("private key is a directory", changed("own.key", "."), "mesh.private_key_file",
         ("vsw keygen",)),
    Case("no preshared key file", RIGHT, "mesh.peers[0].preshared_key_file",
         ("does not exist", "vsw keygen"), lambda d: (d / "peer.psk").unlink()),
    Case("preshared key for the group", RIGHT, "mesh.peers[0].preshared_key_file",
         ("0640", "chmod 600"), lambda d: (d / "peer.psk").chmod(0o640)),
]
# fmt: on


def one_message(result: subprocess.CompletedProcess[str]) -> str:
    """The message of a command that failed as it should."""
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def check_in_process(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> subprocess.CompletedProcess[str]:
    from vswitch.cli import main  # noqa: PLC0415 - only what needs it pays for it

    status = main(["check", str(file)])
    out = capsys.readouterr()
    return subprocess.CompletedProcess(["vsw"], status, out.out, out.err)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_check(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_files(tmp_path)
    text = case.text.encode() if isinstance(case.text, str) else case.text
    file.write_bytes(text)
    case.before(tmp_path)
    before = sorted(tmp_path.iterdir())
    message = one_message(check_in_process(file, capsys))
    assert message.startswith(f"vsw: {file}: ")
    assert case.where in message.removeprefix(f"vsw: {file}: ")
    for part in case.says:
        assert part in message
    assert sorted(tmp_path.iterdir()) == before


def test_the_right_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table's base is right, so each case is wrong for its own reason."""
    result = check_in_process(write_files(tmp_path), capsys)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("vsw.toml: ok\n")


# ---- where permission is the point


@dataclass(frozen=True)
class Denied:
    """A right text, and what is taken away from the user who runs it."""

    name: str
    text: str
    where: str
    says: tuple[str, ...]
    mode: int = 0o500
    path: str = "closed"
    command: str = "check"


# fmt: off
DENIED = [
    Denied("server directory", changed("vm2.sock", "closed/vm2.sock"),
           "bridges.br0.ports.vm2.path", ("no permission", "closed", "another directory")),
    Denied("server directory, run", changed("vm2.sock", "closed/vm2.sock"),
           "bridges.br0.ports.vm2.path", ("no permission",), command="run"),
    Denied("client directory", changed("vm1.sock", "closed/vm1.sock"),
           "bridges.br0.ports.vm1.path", ("no permission", "search"), mode=0o600),
    Denied("control directory", changed("control.sock", "closed/c.sock"), "control",
           ("no permission",)),
    Denied("control directory, run", changed("control.sock", "closed/c.sock"), "control",
           ("no permission",), command="run"),
    Denied("default control directory", changed('control = "control.sock"', ""), "control",
           ("/run/vsw",)),
    Denied("private key", RIGHT, "mesh.private_key_file", ("cannot be read", "readable"),
           mode=0, path="own.key"),
    Denied("private key, run", RIGHT, "mesh.private_key_file", ("cannot be read",),
           mode=0, path="own.key", command="run"),
    Denied("preshared key", RIGHT, "mesh.peers[0].preshared_key_file", ("cannot be read",),
           mode=0, path="peer.psk"),
    Denied("the file itself", RIGHT, "vsw.toml", ("cannot be read", "uid"), mode=0,
           path="vsw.toml"),
    Denied("foreign group", changed('"0660"', '"0660"\nsocket_group = "root"'),
           "bridges.br0.ports.vm2.socket_group", ("not in the group", "add it")),
    Denied("tap without the right", port('type = "tap"\ninterface = "vswnone0"'),
           "bridges.br0.ports.more.interface", ("vswnone0", "ip tuntap add")),
]
# fmt: on


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that nobody may reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="vsw-test-") as name:
        yield Path(name).resolve()


@pytest.mark.parametrize("case", DENIED, ids=lambda case: case.name)
def test_denied(case: Denied, open_directory: Path) -> None:
    file = write_files(open_directory)
    (open_directory / "closed").mkdir()
    file.write_text(case.text)
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        for path in (open_directory, *open_directory.iterdir()):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    (open_directory / case.path).chmod(case.mode)
    before = sorted(open_directory.iterdir())
    message = one_message(as_nobody([case.command, str(file)]))
    assert message.startswith(f"vsw: {file}: ")
    assert case.where in message
    for part in case.says:
        assert part in message
    assert sorted(open_directory.iterdir()) == before


# ---- what only running finds out


def run_wrong(file: Path) -> str:
    """The one message of a run that does not come to be."""
    result = as_nobody(["run", str(file)])
    answers = [line for line in result.stderr.splitlines() if line.startswith("vsw: ")]
    return one_message(subprocess.CompletedProcess("", result.returncode, "", "\n".join(answers)))


@pytest.fixture
def run_directory(open_directory: Path) -> Path:
    write_files(open_directory)
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        for path in (open_directory, *open_directory.iterdir()):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return open_directory


def test_control_socket_in_use(run_directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(run_directory / "control.sock"))
        os.chmod(run_directory / "control.sock", 0o777)
        other.listen()
        message = run_wrong(run_directory / "vsw.toml")
    assert "vsw.toml: control: another daemon answers" in message
    assert "choose another path" in message
    assert not (run_directory / "vm2.sock").exists()


def test_port_socket_in_use(run_directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(run_directory / "vm2.sock"))
        os.chmod(run_directory / "vm2.sock", 0o777)
        other.listen()
        message = run_wrong(run_directory / "vsw.toml")
    assert "vsw.toml: bridges.br0.ports.vm2.path: " in message
    assert "vm2.sock" in message
    assert not (run_directory / "control.sock").exists()


def test_udp_port_in_use(run_directory: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        number = other.getsockname()[1]
        file = run_directory / "vsw.toml"
        file.write_text(changed('"127.0.0.1:7400"', f'"127.0.0.1:{number}"'))
        message = run_wrong(file)
    assert "vsw.toml: mesh.listen: " in message
    assert str(number) in message
    assert not (run_directory / "control.sock").exists()
    assert not (run_directory / "vm2.sock").exists()


def test_address_of_another_machine(run_directory: Path) -> None:
    file = run_directory / "vsw.toml"
    file.write_text(changed('"127.0.0.1:7400"', '"192.0.2.1:7400"'))
    message = run_wrong(file)
    assert "vsw.toml: mesh.listen: " in message
    assert "192.0.2.1" in message
    assert not (run_directory / "control.sock").exists()


def test_enough_cases() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 40
