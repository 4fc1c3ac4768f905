"""Configurations that are right: what they mean, and what is filled in."""

import tomllib
from ipaddress import ip_network
from pathlib import Path

import pytest

from mesh.address import Address
from mesh.identity import Identity, encode_key
from tests.fakes.configs import OWN_SEED, PEER_SEED, RIGHT, changed, public, write_files
from vhost.messages import OFFLOADS
from vswitch.config import load, parse
from vswitch.errors import Place, UserError
from vswitch.fields import Table
from vswitch.model import Bridge, Config, Control, TapPort, VhostUserPort, Workers


def test_everything_said(tmp_path: Path) -> None:
    file = write_files(tmp_path)
    config = load(str(file))
    assert config.file == str(file)
    assert config.control == Control(str(tmp_path / "control.sock"), 0o600, None)
    assert config.workers.idle == "adaptive"
    (bridge,) = config.bridges
    assert bridge == Bridge(
        "br0", (ip_network("10.5.0.0/24"), ip_network("fd00:5::/64")), 1400, 300, 1024, bridge.ports
    )
    vm1, vm2 = bridge.ports
    assert vm1 == VhostUserPort(
        "vm1",
        str(tmp_path / "vm1.sock"),
        "client",
        0o660,
        None,
        None,
        tuple(OFFLOADS),
        (ip_network("10.5.0.1/32"), ip_network("fd00:5::1/128")),
    )
    assert vm2 == VhostUserPort(
        "vm2",
        str(tmp_path / "vm2.sock"),
        "server",
        0o660,
        None,
        bytes([2, 0, 0, 0, 0, 2]),
        tuple(OFFLOADS),
        (),
    )
    assert config.public_key == Identity(OWN_SEED).public_key
    assert config.mesh is not None
    assert config.mesh.listen == Address.parse("127.0.0.1:7400")
    assert config.mesh.mtu_bytes == 1400
    (peer,) = config.mesh.peers
    assert peer.public_key == Identity(PEER_SEED).public_key
    assert peer.endpoints == (Address.parse("127.0.0.2:7400"),)
    assert peer.addresses == (ip_network("10.5.0.2/32"),)
    assert peer.preshared_key == bytes([3]) * 32


def test_everything_left_out() -> None:
    assert parse({"bridges": {"br0": {}}}, "/etc/vsw.toml") == Config(
        "/etc/vsw.toml",
        Control("/run/vsw/vsw.sock", 0o600, None),
        Workers((), "adaptive"),
        (Bridge("br0", (), 1400, 300, 8192, ()),),
        None,
        None,
    )


def test_ports_may_have_cpus_for_themselves() -> None:
    tap = {"type": "tap", "interface": "t0"}
    ports = {"a": {**tap, "cpus": [2]}, "b": {**tap, "interface": "t1"}}
    values = {"workers": {"cpus": [2, 3]}, "bridges": {"br0": {"ports": ports}}}
    assert [port.cpus for _, port in parse(values, "/x").ports()] == [(2,), ()]
    ports["b"]["cpus"] = [2, 3]
    assert [port.cpus for _, port in parse(values, "/x").ports()] == [(2,), (2, 3)]


def test_a_mesh_has_lanes_for_fewer_workers(tmp_path: Path) -> None:
    file = write_files(tmp_path)
    values = tomllib.loads(file.read_text())
    values["workers"]["cpus"] = list(range(31))
    assert parse(values, str(file)).workers.cpus == tuple(range(31))
    values["workers"]["cpus"] = list(range(32))
    with pytest.raises(UserError, match="32 workers"):
        parse(values, str(file))


def test_a_tap(tmp_path: Path) -> None:
    port = {"type": "tap", "interface": "fifteen-letters", "addresses": ["10.5.0.9"]}
    config = parse({"bridges": {"br0": {"ports": {"host": port}}}}, "/x")
    assert config.bridges[0].ports == (
        TapPort("host", "fifteen-letters", (ip_network("10.5.0.9/32"),)),
    )


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_files(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    config = load(f"../{file.name}")
    assert config.file == str(file)
    assert config.control.path == str(tmp_path / "control.sock")


def test_the_longest_path(tmp_path: Path) -> None:
    file = write_files(tmp_path)
    path = "/tmp/" + "x" * 102
    file.write_text(RIGHT.replace("vm1.sock", path))
    assert len(path) == 107
    assert load(str(file)).bridges[0].ports[0].path == path  # type: ignore[union-attr]  # no tap


def owners(*, port: str, peers: list[str], subnets: list[str], tmp_path: Path) -> Config:
    """A configuration in which these own addresses."""
    write_files(tmp_path)
    keys = [Identity(bytes([10 + i]) * 32).public_key for i in range(len(peers))]
    return parse(
        {
            "bridges": {
                "br0": {
                    "subnets": subnets,
                    "ports": {"p": {"type": "tap", "interface": "t0", "addresses": [port]}},
                }
            },
            "mesh": {
                "listen": "127.0.0.1:7400",
                "private_key_file": "own.key",
                "peers": [
                    {"public_key": encode_key(key), "addresses": [network]}
                    for key, network in zip(keys, peers, strict=True)
                ],
            },
        },
        str(tmp_path / "vsw.toml"),
    )


@pytest.mark.parametrize(
    "peers",
    [
        ["0.0.0.0/0"],
        ["10.0.0.0/8", "10.6.0.0/16"],
        ["10.5.0.2/32", "0.0.0.0/0", "10.0.0.0/8"],
        ["::/0", "fd00::/8"],
    ],
    ids=str,
)
def test_a_gateway_may_own_what_is_around_the_subnet(peers: list[str], tmp_path: Path) -> None:
    config = owners(port="10.5.0.1/32", peers=peers, subnets=["10.5.0.0/24"], tmp_path=tmp_path)
    assert config.mesh is not None
    assert [str(peer.addresses[0]) for peer in config.mesh.peers] == peers


@pytest.mark.parametrize(
    ("port", "peers"),
    [
        ("10.5.0.1/32", ["10.5.0.0/24"]),
        ("10.5.0.1/32", ["10.5.0.0/25"]),
        ("10.5.0.0/28", ["10.5.0.1/32"]),
        ("10.5.0.1/32", ["10.5.0.2/32", "10.5.0.2/32"]),
        ("10.5.0.1/32", ["0.0.0.0/0", "0.0.0.0/0"]),
        ("10.5.0.1/32", ["10.0.0.0/8", "10.5.0.64/26", "10.5.0.65/32"]),
    ],
)
def test_inside_the_subnet_each_address_has_one_owner(
    port: str, peers: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="overlaps"):
        owners(port=port, peers=peers, subnets=["10.5.0.0/24"], tmp_path=tmp_path)


def test_a_listener_on_both_families_reaches_both(tmp_path: Path) -> None:
    file = write_files(tmp_path)
    file.write_text(RIGHT.replace("127.0.0.1:7400", "[::]:7400"))
    config = load(str(file))
    assert config.mesh is not None
    assert str(config.mesh.peers[0].endpoints[0]) == "127.0.0.2:7400"


def test_a_peer_with_a_detour(tmp_path: Path) -> None:
    file = write_files(tmp_path)
    between = public(bytes([9]) * 32)
    text = changed("endpoints =", f'via = "{between}"\nendpoints =')
    file.write_text(f'{text}\n[[mesh.peers]]\npublic_key = "{between}"\n')
    mesh = load(str(file)).mesh
    assert mesh is not None
    assert [str(endpoint) for endpoint in mesh.peers[0].endpoints] == ["127.0.0.2:7400"]
    assert mesh.peers[0].via == mesh.peers[1].public_key


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("control = " + "9" * 5000, "not TOML"),
        ("control = " + "[" * 5000, "not TOML"),
        (f"control = 0x{'f' * 5000}", "control: a number of more than 64 bits"),
        (f"[workers]\ncpus = [{'9' * 300}]", r"workers.cpus\[0\]: a number of more than 64 bits"),
        (f"[workers]\ncpus = [true, {-1 << 70}]", r"workers.cpus\[0\]: an integer is expected"),
    ],
)
def test_numbers_beyond_reason(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "vsw.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=says):
        load(str(file))


def test_errors_say_where() -> None:
    assert str(UserError("wrong", "mend it", Place("/f", "a.b"))) == "/f: a.b: wrong; mend it"
    assert str(UserError("wrong", "mend it", Place("/f", line=3))) == "/f: line 3: wrong; mend it"
    assert str(UserError("wrong; mend it", "")) == "wrong; mend it"


def test_a_table_reports_what_nobody_asked_for() -> None:
    table = Table("/f", "a", {"known": 1, "knwon": 2})
    assert table.integer("known", 0, 9, 5) == 1
    assert table.integer("absent", 0, 9, 5) == 5
    with pytest.raises(UserError) as caught:
        table.close()
    assert str(caught.value) == '/f: a.knwon: unknown key; did you mean "known"?'


def test_offloads_are_all_unless_chosen(tmp_path: Path) -> None:
    def chosen(line: str) -> tuple[str, ...]:
        file = write_files(tmp_path)
        file.write_text(changed('mode = "server"', f'mode = "server"\n{line}'))
        port = load(str(file)).bridges[0].ports[1]
        assert isinstance(port, VhostUserPort)
        return port.offloads

    assert chosen("") == ("csum", "tso4", "tso6", "ecn", "uso")
    assert chosen("offloads = []") == ()
    assert chosen('offloads = ["tso6", "csum"]') == ("csum", "tso6")


def ciphers(tmp_path: Path, line: str) -> list[str]:
    file = write_files(tmp_path)
    file.write_text(changed("listen =", f"{line}\nlisten ="))
    mesh = load(str(file)).mesh
    assert mesh is not None
    return [cipher.text for cipher in mesh.ciphers]


def test_ciphers_in_order_of_preference(tmp_path: Path) -> None:
    both = ["aes-256-gcm", "chacha20-poly1305"]
    assert ciphers(tmp_path, "") == both
    assert ciphers(tmp_path, f"ciphers = {both[::-1]}") == both[::-1]
    assert ciphers(tmp_path, f"ciphers = {both[1:]}") == both[1:]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ('["rot13"]', r"ciphers\[0\]: unknown cipher .*; choose among aes-256-gcm, chacha20"),
        ('["aes-256-gcm", "aes-256-gcm"]', r"ciphers\[1\]: .* twice; remove one"),
        ("[]", "ciphers: nothing to seal with; name one"),
    ],
)
def test_wrong_ciphers(tmp_path: Path, value: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        ciphers(tmp_path, f"ciphers = {value}")
