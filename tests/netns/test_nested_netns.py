"""Meshes whose datagrams go into a mesh: another one's, which works; its own, which must end.

The drawing is in tests/fakes/meshlab.py.  Over it, from tap to tap:

      netns A                                              netns B
    vsw1 10.6.0.1                                        vsw1 10.6.0.2
      |                                                    |
    vsw run -- vsw0 10.5.0.1 ==== the mesh ==== vsw0 10.5.0.2 -- vsw run
"""

from typing import Any

from tests.fakes.configs import public
from tests.fakes.daemons import until
from tests.fakes.meshlab import SEEDS, V4, V6, Lab, add_tap, both_families, needs_root
from tests.fakes.netns import Host, sh
from tests.fakes.talk import PACE_S, Talk
from tests.fakes.wiretap import Rules, pairs

pytestmark = needs_root

PORT = 7401
HEADERS = 20 + 8 + 48
MTU = 1400


def inner_config(number: int) -> str:
    other = 1 - number
    return f"""\
control = "control.sock"
[bridges.br0]
subnets = ["10.6.0.0/24"]
mtu = {MTU}
[bridges.br0.ports.host]
type = "tap"
interface = "vsw1"
addresses = ["10.6.0.{number + 1}/32"]
[mesh]
listen = "0.0.0.0:{PORT}"
private_key_file = "own.key"
[[mesh.peers]]
public_key = "{public(SEEDS[2 + other])}"
endpoints = ["10.5.0.{other + 1}:{PORT}"]
addresses = ["10.6.0.{other + 1}/32"]
"""


def add_inner(lab: Lab, number: int) -> Host:
    netns = lab.hosts[number].netns
    add_tap(netns, "vsw1", f"10.6.0.{number + 1}/24")
    lab.tap(netns, "vsw0", Rules(PORT, pairs(6)))
    own = lab.folder / f"inner{number}"
    own.mkdir()
    return lab.add_daemon(own, netns, 2 + number, inner_config(number))


@both_families
def test_a_mesh_over_a_mesh(lab: Lab) -> None:
    inner = [add_inner(lab, number) for number in (0, 1)]

    def peer(host: Host) -> dict[str, Any]:
        (found,) = host.daemon.ask("mesh", "peers")
        return found

    with Talk(*(host.netns for host in inner), "10.6.0.2", PACE_S) as talk:
        talk.goes_on()
        until(lambda: all(peer(h)["mtu"] == MTU - HEADERS for h in inner), "the MTU that is left")
        talk.goes_on()
        lab.restart(0)
        talk.goes_on()
        talk.finish()
    assert [peer(host)["endpoint"] for host in inner] == [f"10.5.0.{n}:{PORT}" for n in (2, 1)]
    assert [host.daemon.stop() for host in inner] == [0, 0]


def given_by_the_host(host: Host) -> int:
    """Packets that its kernel put into the tap."""
    (row,) = (row for row in host.daemon.ask("stats")["ports"] if row["name"] == "host")
    count: int = row["rx_packets"]
    return count


@both_families
def test_a_mesh_whose_way_is_through_itself(lab: Lab) -> None:
    """A route of the host sends what the mesh sealed into the mesh again.  That ends when it has
    grown too large, and all goes on when the route is gone."""
    a = lab.hosts[0]
    length = {"4": 32, "6": 128}[lab.families]
    inside, outside = {"4": ("10.5.0.2", V4[1]), "6": ("fd00:5::2", V6[1])}[lab.families]
    known = 'addresses = ["10.5.0.2/32"'
    text = a.daemon.file.read_text()
    assert known in text
    text = text.replace(known, f'addresses = ["{outside}/{length}", "10.5.0.2/32"')
    assert a.daemon.reload(text).startswith("running")
    talk = lab.talk()
    talk.goes_on()
    sh(f"ip -n {a.netns} route add {outside} via {inside} dev vsw0")
    until(lambda: a.drops().get("send", 0) > 0, "the end of a loop")
    talk.pause_sending()
    until(lambda: given_by_the_host(a) == given_by_the_host(a), "the end of all loops")
    sh(f"ip -n {a.netns} route del {outside} via {inside} dev vsw0")
    talk.resume()
    talk.goes_on()
    talk.finish()
