"""Who owns which address: the prefixes of ports, peers and subnets must not contradict each other.

Inside a subnet each address has one owner.  A peer's prefix that reaches beyond the subnets (a
gateway's 0.0.0.0/0) may contain others: the longest prefix wins.
"""

from dataclasses import dataclass

from vswitch.errors import Place, UserError
from vswitch.model import Config, Network, port_key


@dataclass(frozen=True)
class Claim:
    """A prefix and the key that claims it.  wide: may contain others' prefixes."""

    network: Network
    key: str
    wide: bool

    def order(self) -> tuple[int, int, int]:
        """Containing prefixes come directly before what they contain."""
        return self.network.version, int(self.network.network_address), self.network.prefixlen


def check_overlaps(config: Config) -> None:
    """Raise UserError for the first contradiction."""
    subnets = [
        Claim(subnet, f"bridges.{bridge.name}.subnets[{i}]", False)
        for bridge in config.bridges
        for i, subnet in enumerate(bridge.subnets)
    ]
    check_claims(config.file, subnets)
    claims = [
        Claim(network, f"{port_key(bridge, port)}.addresses[{i}]", False)
        for bridge, port in config.ports()
        for i, network in enumerate(port.addresses)
    ]
    for i, peer in enumerate(config.mesh.peers if config.mesh else ()):
        for j, network in enumerate(peer.addresses):
            inside = any(contains(subnet.network, network) for subnet in subnets)
            claims.append(Claim(network, f"mesh.peers[{i}].addresses[{j}]", not inside))
    check_claims(config.file, claims)


def check_claims(file: str, claims: list[Claim]) -> None:
    # Sorted, the prefixes around the current one are a stack: nested, innermost last.
    around: list[Claim] = []
    for claim in sorted(claims, key=Claim.order):
        while around and not contains(around[-1].network, claim.network):
            around.pop()
        for other in around:
            if other.wide and other.network != claim.network:
                continue
            raise UserError(
                f"{claim.network} overlaps {other.network} of {other.key}",
                "give each address to one owner",
                Place(file, claim.key),
            )
        around.append(claim)


def contains(outer: Network, inner: Network) -> bool:
    return (
        outer.version == inner.version
        and outer.prefixlen <= inner.prefixlen
        and int(outer.network_address) == int(inner.network_address) & int(outer.netmask)
    )
