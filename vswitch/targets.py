"""Which peer of the mesh a person means: by its public key, the beginning of one, or an address."""

from ipaddress import IPv4Address, IPv6Address, ip_address

from mesh.config import PeerConfig
from mesh.identity import encode_key
from vswitch.errors import UserError
from vswitch.model import Config

_KEYS_SHOWN = 3


def find_peer(config: Config, target: str) -> PeerConfig:
    """Raises UserError when that is no peer, or not clear."""
    if config.mesh is None:
        raise UserError("this switch has no mesh", "add [mesh] to its configuration")
    try:
        address = ip_address(target)
    except ValueError:
        return _by_key(config, config.mesh.peers, target)
    return _by_address(config, config.mesh.peers, address)


def _by_key(config: Config, peers: tuple[PeerConfig, ...], target: str) -> PeerConfig:
    if config.public_key is not None and target == encode_key(config.public_key):
        raise UserError(f"{target} is this node itself", "name a peer")
    found = [peer for peer in peers if encode_key(peer.public_key).startswith(target)]
    if target and len(found) == 1:
        return found[0]
    if not target or not found:
        raise UserError(
            f'"{target}" is neither the beginning of a peer\'s public key nor an address',
            "name a peer that vsw mesh peers shows",
        )
    keys = ", ".join(encode_key(peer.public_key) for peer in found[:_KEYS_SHOWN])
    more = f" and {len(found) - _KEYS_SHOWN} more" if len(found) > _KEYS_SHOWN else ""
    raise UserError(f'"{target}" may be {keys}{more}', "write more of the key")


def _by_address(
    config: Config, peers: tuple[PeerConfig, ...], address: IPv4Address | IPv6Address
) -> PeerConfig:
    """The longest prefix decides, as in the data plane."""
    owners: list[tuple[int, PeerConfig | str]] = [
        (network.prefixlen, peer)
        for peer in peers
        for network in peer.addresses
        if address in network
    ]
    owners += [
        (network.prefixlen, f"{bridge.name}/{port.name}")
        for bridge, port in config.ports()
        for network in port.addresses
        if address in network
    ]
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        owners = []  # no address, as for the data plane
    if not owners:
        raise UserError(f"nobody in the mesh has the address {address}", "see vsw mesh routes")
    _, owner = max(owners, key=lambda row: row[0])
    if isinstance(owner, str):
        raise UserError(f"{address} is behind port {owner} of this switch", "name a peer's")
    return owner
