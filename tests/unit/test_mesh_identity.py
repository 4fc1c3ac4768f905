"""mesh/identity.py, mesh/keyfile.py, mesh/address.py: keys and addresses, right and wrong."""

import base64
import os
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from mesh.address import Address
from mesh.errors import ConfigError
from mesh.identity import Identity, decode_key, encode_key, node_id, public_key, static_public
from mesh.keyfile import load_identity, load_preshared_key, write_private_key

SEED = bytes(range(32))
TEXT = encode_key(SEED)


def test_identity_is_the_seed_s_key_pair() -> None:
    identity = Identity(SEED)
    signer = SigningKey(SEED)
    assert identity.public_key == bytes(signer.verify_key)
    assert identity.static_private == bytes(signer.to_curve25519_private_key())
    assert identity.static_public == static_public(identity.public_key)
    assert identity.node_id == node_id(identity.public_key)
    assert len(identity.node_id) == 8


def test_node_id_is_fixed_for_ever() -> None:
    assert node_id(Identity(SEED).public_key).hex() == "2027766282884770"


def test_repr_shows_no_secret() -> None:
    identity = Identity(SEED)
    shown = repr(identity)
    assert encode_key(identity.public_key) in shown
    for secret in (SEED, identity.static_private):
        assert encode_key(secret) not in shown
        assert secret.hex() not in shown


# Points of order 1, 2, 4, 8 of Curve25519's Edwards form, a point outside the main subgroup (base
# point plus the point of order 2), and a y that is on no point.
BAD_POINTS = [
    b"\1" + bytes(31),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes(32),
    bytes(31) + b"\x80",
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    bytes.fromhex("9599999999999999999999999999999999999999999999999999999999999999"),
    b"\2" + bytes(31),
]


@pytest.mark.parametrize("point", BAD_POINTS, ids=lambda p: p.hex()[:8])
def test_public_keys_that_protect_nothing_are_refused(point: bytes) -> None:
    with pytest.raises(ConfigError, match="no valid Ed25519 key"):
        public_key(encode_key(point), "mesh.peers[0].public_key")


def test_message_begins_with_the_place() -> None:
    with pytest.raises(ConfigError, match=r"^mesh\.peers\[0\]\.public_key: the public key"):
        public_key("AAAA", "mesh.peers[0].public_key")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has 0 bytes"),
        ("AAAA", "has 3 bytes"),
        (TEXT + "AAAA", "not base64"),
        (TEXT[:-1], "not base64"),
        (TEXT.replace("=", "é"), "not base64"),
        (" " + TEXT, "not base64"),
        (encode_key(bytes(33)), "has 33 bytes"),
        (TEXT[:-2] + "9=", "stray bits"),
    ],
)
def test_wrong_base64(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decode_key(text, "public key")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "a.key"
    write_private_key(str(path), SEED)
    return path


def test_written_key_is_private_and_loads(key_file: Path) -> None:
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert load_identity(str(key_file)).public_key == Identity(SEED).public_key
    assert load_preshared_key(str(key_file)) == SEED


def test_existing_key_is_never_overwritten(key_file: Path) -> None:
    with pytest.raises(ConfigError, match="exists"):
        write_private_key(str(key_file), bytes(32))
    assert load_preshared_key(str(key_file)) == SEED


def test_key_in_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory"):
        write_private_key(str(tmp_path / "no" / "a.key"), SEED)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620])
def test_key_that_others_may_use_is_refused(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    with pytest.raises(ConfigError, match=f"mode {mode:04o}.*chmod 600 {key_file}"):
        load_identity(str(key_file))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a single line"),
        (b"\n", "has 0 bytes"),
        (b"garbage\n", "not base64"),
        (b"\xff\xfe\n", "not base64"),
        (base64.b64encode(bytes(31)) + b"\n", "has 31 bytes"),
        (TEXT.encode() + b"\n" + TEXT.encode() + b"\n", "not a single line"),
        (b"A" * 5000, "not a single line"),
    ],
)
def test_wrong_key_file_is_explained(key_file: Path, content: bytes, message: str) -> None:
    key_file.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_identity(str(key_file))
    assert str(caught.value).startswith(f"{key_file}: ")
    assert "garbage" not in str(caught.value)


def test_missing_key_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist; make one with: vsw keygen"):
        load_identity(str(tmp_path / "no.key"))


def test_key_file_that_is_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(ConfigError, match="no ordinary file"):
        load_identity(str(tmp_path / "fifo"))


def test_key_file_that_is_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_identity(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "ip", "port"),
    [
        ("192.0.2.1:7400", "192.0.2.1", 7400),
        ("[2001:db8::1]:1", "2001:db8::1", 1),
        ("[::]:65535", "::", 65535),
        ("[::ffff:192.0.2.1]:7", "192.0.2.1", 7),
    ],
)
def test_address(text: str, ip: str, port: int) -> None:
    address = Address.parse(text)
    assert address == Address(ip_address(ip), port)
    assert Address.parse(str(address)) == address
    assert Address.from_packed(address.packed(), port) == address


def test_packed_ipv4_is_mapped() -> None:
    assert Address(IPv4Address("1.2.3.4"), 5).packed() == bytes(10) + b"\xff\xff\1\2\3\4"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "192.0.2.1",
        "192.0.2.1:",
        "192.0.2.1:0",
        "192.0.2.1:65536",
        "192.0.2.1:-1",
        "192.0.2.1:7400 ",
        "192.0.2.1:７４００",
        "192.0.2.256:1",
        "[192.0.2.1]:7400",
        "2001:db8::1:7400",
        "[2001:db8::1]",
        "[2001:db8::1]:",
        "[fe80::1%eth0]:7400",
        ":7400",
        "[]:7400",
        "example.org:7400",
        "localhost:7400",
    ],
)
def test_wrong_address_is_explained(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Address.parse(text, "mesh.listen")
    assert str(caught.value).startswith("mesh.listen: ")
