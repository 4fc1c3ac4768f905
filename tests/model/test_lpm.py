"""Longest-prefix match against the slowest implementation that is obviously right."""

import errno
import ipaddress

from _dataplane import ffi, lib
from hypothesis import given
from hypothesis import strategies as st

# Few distinct bits, so that prefixes nest and collide.
IP6 = st.integers(0, 2**128 - 1).map(lambda n: n & 0xC000_0000_0000_0001_0000_FFFF_0000_0003)
IP4 = st.integers(0, 3).map(lambda n: 0xFFFF_0000_0000 | n)
ADDRESSES = st.one_of(IP6, IP4)
ROUTES = st.dictionaries(
    st.tuples(ADDRESSES, st.sampled_from([0, 1, 2, 63, 64, 65, 96, 127, 128])).map(
        lambda t: ipaddress.IPv6Network((t[0], t[1]), strict=False)
    ),
    st.integers(0, 2 * 65536 - 1),  # a port, or a peer
    max_size=30,
)


@given(ROUTES, st.lists(ADDRESSES, min_size=1, max_size=20))
def test_longest_prefix_wins(routes, wanted):
    table = ffi.gc(lib.lpm_new(len(routes)), lib.lpm_free)
    for network, value in routes.items():
        assert lib.lpm_add(table, network.network_address.packed, network.prefixlen, value) == 0
    for number in [*wanted, *(int(network.network_address) for network in routes)]:
        address = ipaddress.IPv6Address(number)
        shortest = 96 if address.ipv4_mapped else 0  # no prefix of IPv6 holds an IPv4 address
        holding = [n for n in routes if address in n and n.prefixlen >= shortest]
        expected = routes[max(holding, key=lambda n: n.prefixlen)] if holding else -1
        assert lib.lpm_lookup(table, address.packed) == expected


def test_limits():
    table = ffi.gc(lib.lpm_new(1), lib.lpm_free)
    address = bytes(16)
    assert lib.lpm_lookup(table, address) == -1
    assert lib.lpm_add(table, address, 129, 1) < 0
    assert lib.lpm_add(table, address, 128, 1) == 0
    assert lib.lpm_add(table, address, 128, 2) < 0, "twice the same prefix"
    assert lib.lpm_add(table, address, 127, 3) < 0, "one route more than it was made for"
    assert lib.lpm_lookup(table, address) == 1


@given(st.integers(2 * 65536, 2**32 - 1))
def test_what_is_no_port_and_no_peer_is_refused(value: int) -> None:
    table = ffi.gc(lib.lpm_new(1), lib.lpm_free)
    assert lib.lpm_add(table, bytes(16), 0, value) == -errno.EINVAL
    assert lib.lpm_lookup(table, bytes(16)) == -1
