"""vswitch/targets.py: whom a person means."""

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from mesh.config import PeerConfig
from mesh.identity import encode_key
from tests.fakes.configs import OWN_SEED, public, write_files
from vswitch.config import load
from vswitch.errors import UserError
from vswitch.model import Config
from vswitch.targets import find_peer

# In base64: "AAAA…" and "AAAB…", and one of its own.
FIRST, SECOND, THIRD = bytes(32), bytes(2) + b"\1" + bytes(29), bytes([7]) * 32


@pytest.fixture
def config(tmp_path: Path) -> Config:
    made = load(str(write_files(tmp_path)))
    assert made.mesh is not None
    networks = (["10.5.0.0/24"], ["10.5.0.64/26", "fd00:5::/64"], ["10.5.0.70/32", "::/1"])
    peers = tuple(
        PeerConfig(key, addresses=tuple(ip_network(text) for text in texts))
        for key, texts in zip((FIRST, SECOND, THIRD), networks, strict=True)
    )
    return replace(made, mesh=replace(made.mesh, peers=peers))


@pytest.mark.parametrize(
    ("target", "key"),
    [
        (encode_key(FIRST), FIRST),
        (encode_key(THIRD), THIRD),
        ("AAAA", FIRST),
        ("AAAB", SECOND),
        ("B", THIRD),
        ("10.5.0.2", FIRST),
        ("10.5.0.65", SECOND),
        ("10.5.0.70", THIRD),
        ("10.5.0.71", SECOND),
        ("fd00:5::7", SECOND),
    ],
)
def test_found(config: Config, target: str, key: bytes) -> None:
    assert find_peer(config, target).public_key == key


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("", "neither"),
        ("AAA", f"may be {encode_key(FIRST)}, {encode_key(SECOND)}"),
        ("aaaa", "neither"),
        (encode_key(FIRST) + "=", "neither"),
        ("10.5.0", "neither"),
        (public(OWN_SEED), "this node itself"),
        ("10.6.0.1", "nobody in the mesh"),
        ("fe00:6::1", "nobody in the mesh"),
        ("::ffff:10.5.0.2", "nobody in the mesh"),
        ("10.5.0.1", "behind port br0/vm1"),
        ("fd00:5::1", "behind port br0/vm1"),
    ],
)
def test_not_found(config: Config, target: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        find_peer(config, target)
    assert says in error.value.what
    assert error.value.remedy


def test_no_mesh(config: Config) -> None:
    with pytest.raises(UserError, match="has no mesh"):
        find_peer(replace(config, mesh=None), "AAAA")
