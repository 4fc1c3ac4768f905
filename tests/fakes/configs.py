"""A right configuration for tests, and how to change it."""

import base64
import os
from pathlib import Path

from nacl.signing import SigningKey

OWN_SEED = bytes([1]) * 32
PEER_SEED = bytes([2]) * 32


def public(seed: bytes) -> str:
    return base64.b64encode(bytes(SigningKey(seed).verify_key)).decode()


def write_key(path: Path, key: bytes) -> None:
    path.write_text(base64.b64encode(key).decode() + "\n")
    path.chmod(0o600)


RIGHT = f"""\
control = "control.sock"

[workers]
cpus = [{min(os.sched_getaffinity(0))}]
idle = "adaptive"

[bridges.br0]
subnets = ["10.5.0.0/24", "fd00:5::/64"]
mtu = 1400
ageing_seconds = 300
mac_table_size = 1024

[bridges.br0.ports.vm1]
type = "vhost-user"
path = "vm1.sock"
mode = "client"
addresses = ["10.5.0.1/32", "fd00:5::1/128"]

[bridges.br0.ports.vm2]
type = "vhost-user"
path = "vm2.sock"
mode = "server"
socket_mode = "0660"
mac = "02:00:00:00:00:02"

[mesh]
listen = "127.0.0.1:7400"
private_key_file = "own.key"

[[mesh.peers]]
public_key = "{public(PEER_SEED)}"
endpoints = ["127.0.0.2:7400"]
addresses = ["10.5.0.2/32"]
preshared_key_file = "peer.psk"
"""


def write_files(directory: Path) -> Path:
    """The right configuration and the files it names; returns its path."""
    write_key(directory / "own.key", OWN_SEED)
    write_key(directory / "peer.psk", bytes([3]) * 32)
    path = directory / "vsw.toml"
    path.write_text(RIGHT)
    return path


def changed(old: str, new: str) -> str:
    """The right configuration with the one place called old replaced."""
    assert RIGHT.count(old) == 1, f"{old!r} stands {RIGHT.count(old)} times in RIGHT"
    return RIGHT.replace(old, new)
