"""Who the peers shall be: a configuration's list, checked, with the keys to talk to each."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from mesh import noise
from mesh.config import MAX_PEERS, PeerConfig
from mesh.errors import ConfigError
from mesh.handshake import PeerKeys
from mesh.identity import Identity, encode_key, static_public
from mesh.relay import wrong_via


def members(
    identity: Identity, configs: Collection[PeerConfig], known: Mapping[bytes, PeerKeys]
) -> dict[bytes, tuple[PeerConfig, PeerKeys]]:
    """By public key.  known: keys computed before, used again.  Raises ConfigError."""
    if len(configs) > MAX_PEERS:
        raise ConfigError(f"{len(configs)} peers are too many", f"list at most {MAX_PEERS}")
    wanted: dict[bytes, tuple[PeerConfig, PeerKeys]] = {}
    for config in configs:
        name = f"peer {encode_key(config.public_key)}"
        if config.public_key == identity.public_key:
            raise ConfigError("a peer has this node's own public key", "remove it", name)
        if config.public_key in wanted:
            raise ConfigError("the peer is listed twice", "list it once", name)
        keys = known.get(config.public_key)
        preshared = config.preshared_key or noise.NO_PRESHARED_KEY
        if keys is None or keys.preshared_key != preshared:
            static = static_public(config.public_key, name)
            shared = noise.dh(identity.static_private, static)
            keys = PeerKeys(config.public_key, static, shared, preshared)
        wanted[config.public_key] = config, keys
    wrong = wrong_via(identity.public_key, {key: peer for key, (peer, _) in wanted.items()})
    if wrong is not None:
        where = f"via of peer {encode_key(wrong.public_key)}"
        raise ConfigError(wrong.what, wrong.remedy, where)
    return wanted
