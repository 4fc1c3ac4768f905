"""Read a configuration file (TOML) and check it.

load() makes every check that can be made without starting anything: form and meaning of each key
here, files and directories in host.py.  Relative paths are relative to the file's directory.
The keys are described in docs/configuration.md.
"""

import os
import re
import tomllib
from typing import Any

from mesh.address import Address
from mesh.config import MAX_PEERS, MeshConfig, PeerConfig
from mesh.identity import encode_key, public_key
from mesh.keyfile import load_identity, load_preshared_key
from mesh.relay import wrong_via
from mesh.wire import Cipher
from vhost.messages import OFFLOADS
from vswitch.errors import Place, UserError
from vswitch.fields import Table, parse_endpoint, parse_mac
from vswitch.host import check_host
from vswitch.model import (
    DEFAULT_AGEING_S,
    DEFAULT_CONTROL,
    DEFAULT_MAC_TABLE_SIZE,
    DEFAULT_MTU_BYTES,
    Bridge,
    Config,
    Control,
    Network,
    Port,
    TapPort,
    VhostUserPort,
    Workers,
    port_key,
)
from vswitch.overlaps import check_overlaps

MAX_BYTES = 4 * 1024 * 1024  # of a configuration file
MAX_WORKERS = 32  # as in core/abi.h
MAX_MESH_WORKERS = 31  # one of MESH_LANES is the control thread's
MAX_BRIDGES = 64
MAX_SUBNETS = 16  # of one bridge, as in core/snapshot.h
MAX_PORTS = 1023  # one of abi.h's 1024 is the mesh
MTU_BYTES_MIN = 576  # what each IPv4 host must accept (RFC 791, 3.1)
MTU_BYTES_MIN_IPV6 = 1280  # RFC 8200, section 5
MTU_BYTES_MAX = 9216
# One of the offloads that each is built on (virtio 1.2, 5.1.3.1).
OFFLOAD_NEEDS = {"tso4": ("csum",), "tso6": ("csum",), "uso": ("csum",), "ecn": ("tso4", "tso6")}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}")


def load(path: str) -> Config:
    """The configuration in a file.  Raises UserError for the first mistake found."""
    file = os.path.abspath(path)
    config = parse(read(file), file)
    check_host(config)
    return config


def read(file: str) -> dict[str, Any]:
    place = Place(file)
    try:
        with open(file, "rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError("there is no such file", "name a configuration file", place) from None
    except OSError as e:
        raise UserError(
            f"cannot be read: {e.strerror}", f"name a file that uid {os.geteuid()} may read", place
        ) from None
    if len(content) > MAX_BYTES:
        raise UserError(f"longer than {MAX_BYTES} bytes", "name a configuration file", place)
    try:
        text = content.decode()
    except UnicodeDecodeError as e:
        line = content.count(b"\n", 0, e.start) + 1
        raise UserError("not UTF-8", "save the file as UTF-8", Place(file, line=line)) from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        what, line = toml_mistake(str(e), text)
        raise UserError(
            f"not TOML: {what}",
            "correct that line (the syntax: https://toml.io)",
            Place(file, line=line),
        ) from None
    except (ValueError, RecursionError):  # tomllib lets these through
        raise UserError(
            "not TOML: a number of thousands of digits, or tables nested as deeply",
            "write a file that a person can read",
            Place(file),
        ) from None


def toml_mistake(message: str, text: str) -> tuple[str, int]:
    """tomllib's message, as (what, line)."""
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", message, re.S)
    if not found:
        return message, 0
    return found[1], int(found[2]) if found[2] else text.count("\n") + 1


def parse(values: dict[str, Any], file: str) -> Config:
    """The configuration in parsed TOML; reads the key files that it names."""
    top = Table(file, "", values)
    control = parse_control(top)
    workers = parse_workers(top.table("workers"))
    bridges = parse_bridges(top.table("bridges"), file)
    mtu_bytes = max((bridge.mtu_bytes for bridge in bridges), default=DEFAULT_MTU_BYTES)
    mesh = parse_mesh(top.table("mesh"), file, mtu_bytes)
    top.close()
    if not bridges:
        top.wrong("bridges", "no bridge is configured", "add a table like [bridges.br0]")
    config = Config(file, control, workers, bridges, *(mesh or (None, None)))
    if mesh and len(workers.cpus) > MAX_MESH_WORKERS:
        remedy = f"choose at most {MAX_MESH_WORKERS} CPUs beside a mesh"
        top.wrong("workers.cpus", f"{len(workers.cpus)} workers", remedy)
    check_unique(config)
    check_port_cpus(config)
    check_overlaps(config)
    return config


def resolve(file: str, path: str) -> str:
    """A path in the configuration, as an absolute one."""
    return os.path.normpath(os.path.join(os.path.dirname(file), path))


def parse_control(top: Table) -> Control:
    path = resolve(top.place().file, top.string("control") or DEFAULT_CONTROL)
    return Control(path, top.octal("control_mode", 0o600), top.string("control_group"))


def parse_workers(table: Table | None) -> Workers:
    if table is None:
        return Workers()
    cpus = parse_cpus(table)
    if len(cpus) > MAX_WORKERS:
        table.wrong("cpus", f"{len(cpus)} workers", f"choose at most {MAX_WORKERS} CPUs")
    idle = table.choice("idle", ("adaptive", "poll"), "adaptive")
    table.close()
    return Workers(cpus, idle)


def parse_cpus(table: Table) -> tuple[int, ...]:
    cpus: list[int] = table.array("cpus", int)
    for i, cpu in enumerate(cpus):
        if cpu < 0:
            table.wrong("cpus", f"{cpu} is not a CPU's number", "count CPUs from 0")
        if cpu in cpus[:i]:
            table.wrong("cpus", f"CPU {cpu} stands here twice", "remove one of the two")
    if table.has("cpus") and not cpus:
        table.wrong("cpus", "an empty list", "name at least one CPU, or leave the key out")
    return tuple(cpus)


def parse_bridges(table: Table | None, file: str) -> tuple[Bridge, ...]:
    if table is None:
        return ()
    bridges = tuple(parse_bridge(table, name, file) for name in table.names())
    if len(bridges) > MAX_BRIDGES:
        table.wrong("", f"{len(bridges)} bridges", f"configure at most {MAX_BRIDGES}")
    return bridges


def named(parent: Table, name: str) -> Table:
    """The table of something that the user named."""
    if not NAME.fullmatch(name):
        parent.wrong(
            name,
            f'"{name}" is no usable name',
            "use 1 to 63 letters, digits, and . _ @ - (a letter or digit first)",
        )
    table = parent.table(name)
    assert table is not None
    return table


def parse_bridge(parent: Table, name: str, file: str) -> Bridge:
    table = named(parent, name)
    subnets = table.networks("subnets")
    if len(subnets) > MAX_SUBNETS:
        table.wrong("subnets", f"{len(subnets)} subnets", f"configure at most {MAX_SUBNETS}")
    mtu_bytes = table.integer("mtu", MTU_BYTES_MIN, MTU_BYTES_MAX, DEFAULT_MTU_BYTES)
    if mtu_bytes < MTU_BYTES_MIN_IPV6 and any(subnet.version == 6 for subnet in subnets):
        table.wrong(
            "mtu",
            f"{mtu_bytes} is too small for the bridge's IPv6 subnets",
            f"write at least {MTU_BYTES_MIN_IPV6}",
        )
    ageing_s = table.integer("ageing_seconds", 1, 86400, DEFAULT_AGEING_S)
    mac_table_size = table.integer("mac_table_size", 10, 1_000_000, DEFAULT_MAC_TABLE_SIZE)
    ports = table.table("ports")
    parsed = tuple(parse_port(ports, port, file) for port in ports.names()) if ports else ()
    table.close()
    return Bridge(name, subnets, mtu_bytes, ageing_s, mac_table_size, parsed)


def parse_port(parent: Table, name: str, file: str) -> Port:
    table = named(parent, name)
    kind = table.choice("type", ("vhost-user", "tap"))
    port = parse_vhost_user(table, name, file) if kind == "vhost-user" else parse_tap(table, name)
    table.close()
    return port


def parse_vhost_user(table: Table, name: str, file: str) -> VhostUserPort:
    path = resolve(file, table.required_string("path", "write the path of the VM's socket"))
    mode = table.choice("mode", ("client", "server"))
    cpus = parse_cpus(table)
    if mode == "client":
        for key in ("socket_mode", "socket_group"):
            if table.has(key):
                table.wrong(
                    key,
                    'only with mode = "server": the VM makes the socket here',
                    "remove the key, or change the mode",
                )
    socket_mode = table.octal("socket_mode", 0o660)
    return VhostUserPort(
        name=name,
        path=path,
        mode=mode,
        socket_mode=socket_mode,
        socket_group=table.string("socket_group"),
        mac=table.optional("mac", parse_mac),
        offloads=parse_offloads(table),
        addresses=table.networks("addresses"),
        cpus=cpus,
    )


def parse_offloads(table: Table) -> tuple[str, ...]:
    """In the order of OFFLOADS, so that another order in the file is no change."""
    if not table.has("offloads"):
        return tuple(OFFLOADS)
    names: list[str] = table.array("offloads", str)
    for i, name in enumerate(names):
        key = f"offloads[{i}]"
        if name not in OFFLOADS:
            known = ", ".join(f'"{offload}"' for offload in OFFLOADS)
            table.wrong(key, f'unknown offload "{name}"', f"choose among {known}")
        if name in names[:i]:
            table.wrong(key, f'"{name}" stands here twice', "remove one of the two")
        needed = OFFLOAD_NEEDS.get(name, ())
        if needed and not set(needed) & set(names):
            listed = " or ".join(f'"{offload}"' for offload in needed)
            table.wrong(key, f'"{name}" works with {listed} only', f"add {listed}, or remove it")
    return tuple(name for name in OFFLOADS if name in names)


def parse_tap(table: Table, name: str) -> TapPort:
    interface = table.required_string("interface", "write the tap's name")
    # linux/if.h: IFNAMSIZ is 16; net/core/dev.c dev_valid_name() refuses the rest.
    if len(interface.encode()) > 15:
        table.wrong("interface", f'"{interface}" is longer than 15 bytes', "choose a shorter name")
    bad = any(c in "/:%" or c.isspace() or not c.isprintable() for c in interface)
    if bad or interface in (".", ".."):
        table.wrong(
            "interface",
            f'"{interface}" cannot be an interface\'s name',
            "use letters, digits, and . _ -",
        )
    return TapPort(name, interface, table.networks("addresses"), parse_cpus(table))


def parse_mesh(table: Table | None, file: str, mtu_bytes: int) -> tuple[MeshConfig, bytes] | None:
    """The mesh, and our own public key.  mtu_bytes: the largest of the bridges."""
    if table is None:
        return None
    text = table.required_string("listen", 'write an address and a port, like "0.0.0.0:7400"')
    listen = table.parsed("listen", text, parse_endpoint)
    key_file = resolve(
        file,
        table.required_string(
            "private_key_file", "make a key with vsw keygen FILE and name the file"
        ),
    )
    own = table.parsed("private_key_file", key_file, load_identity).public_key
    peers: dict[bytes, PeerConfig] = {}
    for entry in table.tables("peers"):
        peer = parse_peer(entry, listen, file)
        if peer.public_key == own:
            entry.wrong("public_key", "this node's own key", "name the other node's key")
        if peer.public_key in peers:
            entry.wrong(
                "public_key",
                f"{encode_key(peer.public_key)} stands here twice",
                "put both entries into one",
            )
        peers[peer.public_key] = peer
    check_vias(table.tables("peers"), own, peers)
    if len(peers) > MAX_PEERS:
        table.wrong("peers", f"{len(peers)} peers", f"configure at most {MAX_PEERS}")
    ciphers = parse_ciphers(table)
    table.close()
    return MeshConfig(listen, key_file, tuple(peers.values()), mtu_bytes, ciphers), own


def parse_ciphers(table: Table) -> tuple[Cipher, ...]:
    if not table.has("ciphers"):
        return tuple(Cipher)
    known = {cipher.text: cipher for cipher in Cipher}
    ciphers: list[Cipher] = []
    for i, name in enumerate(table.array("ciphers", str)):
        if name not in known:
            table.wrong(
                f"ciphers[{i}]", f'unknown cipher "{name}"', f"choose among {', '.join(known)}"
            )
        if known[name] in ciphers:
            table.wrong(f"ciphers[{i}]", f"{name} stands here twice", "remove one of the two")
        ciphers.append(known[name])
    if not ciphers:
        table.wrong("ciphers", "nothing to seal with", f"name one of {', '.join(known)}")
    return tuple(ciphers)


def parse_peer(table: Table, listen: Address, file: str) -> PeerConfig:
    text = table.required_string("public_key", "write what vsw keygen printed on that node")
    key = table.parsed("public_key", text, public_key)
    endpoints: list[Address] = []
    for i, entry in enumerate(table.array("endpoints", str)):
        name = f"endpoints[{i}]"
        endpoint = table.parsed(name, entry, parse_endpoint)
        if endpoint in endpoints:
            table.wrong(name, f"{endpoint} stands here twice", "remove one of the two")
        if endpoint.ip.is_unspecified:
            table.wrong(name, f"nothing can be sent to {endpoint.ip}", "write that node's address")
        check_reach(table, name, listen, endpoint)
        endpoints.append(endpoint)
    psk = table.optional("preshared_key_file", lambda path: load_preshared_key(resolve(file, path)))
    via = table.optional("via", public_key)
    addresses: tuple[Network, ...] = table.networks("addresses")
    table.close()
    return PeerConfig(key, tuple(endpoints), addresses, psk, via)


def check_vias(tables: list[Table], own: bytes, peers: dict[bytes, PeerConfig]) -> None:
    """Each way by other nodes ends at one that can be reached.  tables: of peers, in order."""
    wrong = wrong_via(own, peers)
    if wrong is not None:
        tables[list(peers).index(wrong.public_key)].wrong("via", wrong.what, wrong.remedy)


def check_reach(table: Table, name: str, listen: Address, endpoint: Address) -> None:
    """One socket sends to all peers, so its address family decides whom it reaches."""
    both = listen.ip.version == 6 and listen.ip.is_unspecified
    if endpoint.ip.version != listen.ip.version and not both:
        table.wrong(
            name,
            f'{endpoint} cannot be reached from mesh.listen = "{listen}"',
            f'use an IPv{listen.ip.version} endpoint, or listen on "[::]:{listen.port}" for both',
        )


def check_unique(config: Config) -> None:
    """Sockets and interfaces have one user each."""
    seen = {f"socket {config.control.path}": "control"}
    if len(config.ports()) > MAX_PORTS:
        raise UserError(
            f"{len(config.ports())} ports",
            f"configure at most {MAX_PORTS}",
            Place(config.file, "bridges"),
        )
    for bridge, port in config.ports():
        key = f"bridges.{bridge.name}.ports.{port.name}"
        match port:
            case VhostUserPort():
                resource, key = f"socket {port.path}", f"{key}.path"
            case TapPort():
                resource, key = f"interface {port.interface}", f"{key}.interface"
        if resource in seen:
            raise UserError(
                f"the {resource} is already used by {seen[resource]}",
                "give each its own",
                Place(config.file, key),
            )
        seen[resource] = key


def check_port_cpus(config: Config) -> None:
    """CPUs that ports want for themselves have workers, and somebody is left for the others."""
    cpus = set(config.workers.cpus)
    taken: set[int] = set()
    for bridge, port in config.ports():
        for cpu in port.cpus:
            if cpu not in cpus:
                raise UserError(
                    f"no worker runs on CPU {cpu}",
                    f"add {cpu} to workers.cpus, or name another",
                    Place(config.file, f"{port_key(bridge, port)}.cpus"),
                )
        taken.update(port.cpus)
    if not taken or cpus - taken:
        return
    for bridge, port in config.ports():
        if not port.cpus:
            raise UserError(
                "all workers belong to other ports, by their cpus",
                "add a CPU to workers.cpus, or name some of them here too",
                Place(config.file, f"{port_key(bridge, port)}.cpus"),
            )
