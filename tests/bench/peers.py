"""What others run on two hosts, each as its package in Debian has it."""

import base64

from nacl.bindings import crypto_scalarmult_base

from tests.bench.ground import run, wire_address
from tests.bench.overlay import IP_BYTES, UDP_BYTES, Overlay, inner

HOSTS = (0, 1)


class WireguardGo(Overlay):
    """WireGuard in user space."""

    name = "wireguard-go"
    overhead_bytes = IP_BYTES + UDP_BYTES + 32

    def start(self) -> None:
        keys = []
        for host in HOSTS:
            secret = run("wg", "genkey").strip()
            file = self.folder / f"key{host}"
            file.touch(mode=0o600)
            file.write_text(secret)
            keys.append((file, public_of(secret)))
        for host in HOSTS:
            # Its control socket lies in one folder for all network namespaces.
            device = f"wgbench{host}"
            environment = {"WG_PROCESS_FOREGROUND": "1"}
            self.launch(host, "wireguard-go", "-f", device, environment=environment)
            self.give_address(host, device)
            other = 1 - host
            self.ground.run(
                host,
                *("wg", "set", device, "private-key", str(keys[host][0]), "listen-port", "51820"),
                *("peer", keys[other][1], "allowed-ips", f"{inner(other)}/32"),
                *("endpoint", f"{wire_address(0, other)}:51820"),
            )


def public_of(secret: str) -> str:
    """WireGuard's public key of a private one, both in base64."""
    return base64.b64encode(crypto_scalarmult_base(base64.b64decode(secret))).decode()


class Nebula(Overlay):
    """With AES-256-GCM, its default."""

    name = "nebula"
    overhead_bytes = IP_BYTES + UDP_BYTES + 32

    def start(self) -> None:
        ca, key = self.folder / "ca.crt", self.folder / "ca.key"
        run("nebula-cert", "ca", "-name", "bench", "-out-crt", str(ca), "-out-key", str(key))
        for host in HOSTS:
            run(
                *("nebula-cert", "sign", "-ca-crt", str(ca), "-ca-key", str(key)),
                *("-name", f"host{host}", "-ip", f"{inner(host)}/24"),
                *("-out-crt", str(self.folder / f"{host}.crt")),
                *("-out-key", str(self.folder / f"{host}.key")),
            )
            file = self.folder / f"{host}.yml"
            file.write_text(self.config(host))
            self.launch(host, "nebula", "-config", str(file))

    def config(self, host: int) -> str:
        other = 1 - host
        return f"""\
pki: {{ca: {self.folder}/ca.crt, cert: {self.folder}/{host}.crt, key: {self.folder}/{host}.key}}
static_host_map: {{"{inner(other)}": ["{wire_address(0, other)}:4242"]}}
lighthouse: {{am_lighthouse: false}}
listen: {{host: {wire_address(0, host)}, port: 4242}}
tun: {{dev: nebula1, mtu: {self.mtu_bytes}}}
firewall:
  outbound: [{{port: any, proto: any, host: any}}]
  inbound: [{{port: any, proto: any, host: any}}]
"""


class Fastd(Overlay):
    """With its fastest encrypted method."""

    name = "fastd"
    overhead_bytes = IP_BYTES + UDP_BYTES + 24

    def start(self) -> None:
        keys = []
        for _ in HOSTS:
            secret = run("fastd", "--generate-key", "--machine-readable").strip()
            keys.append((secret, self.public_of(secret)))
        for host in HOSTS:
            file, other = self.folder / f"{host}.conf", 1 - host
            file.write_text(
                f'method "salsa2012+umac"; mode tun; interface "fastd0"; mtu {self.mtu_bytes};\n'
                f'bind {wire_address(0, host)}:10000; secret "{keys[host][0]}";\n'
                f'peer "other" {{ key "{keys[other][1]}";\n'
                f"  remote {wire_address(0, other)}:10000; }}\n"
            )
            self.launch(host, "fastd", "--config", str(file))
            self.give_address(host, "fastd0")

    def public_of(self, secret: str) -> str:
        file = self.folder / "one.conf"
        file.write_text(f'secret "{secret}";\n')
        return run("fastd", "--show-key", "--machine-readable", "--config", str(file)).strip()


class Tinc(Overlay):
    """As its manual begins, with the ciphers that it chooses."""

    name = "tinc"

    def start(self) -> None:
        for host in HOSTS:
            folder = self.folder / str(host)
            (folder / "hosts").mkdir(parents=True)
            (folder / "tinc.conf").write_text(
                f"Name = host{host}\nConnectTo = host{1 - host}\nInterface = tinc0\n"
                f"Mode = router\nAddressFamily = ipv4\n"
            )
            (folder / "hosts" / f"host{host}").write_text(
                f"Address = {wire_address(0, host)}\nSubnet = {inner(host)}/32\n"
            )
            run("tincd", "-c", str(folder), "-K2048")
        for host in HOSTS:
            other = self.folder / str(1 - host) / "hosts" / f"host{1 - host}"
            target = self.folder / str(host) / "hosts" / other.name
            target.write_text(other.read_text())
        for host in HOSTS:
            folder = self.folder / str(host)
            pid = folder / "pid"
            self.launch(host, "tincd", "-c", str(folder), "-D", f"--pidfile={pid}")
            self.give_address(host, "tinc0")


class OpenVpn(Overlay):
    """Point to point by UDP with AES-256-GCM, each side knowing the other's certificate."""

    name = "openvpn"
    overhead_bytes = IP_BYTES + UDP_BYTES + 24

    def start(self) -> None:
        prints = [self.certificate(host) for host in HOSTS]
        for host in HOSTS:
            other = 1 - host
            side = ["--tls-client"] if host == 0 else ["--tls-server", "--dh", "none"]
            self.launch(
                host,
                *("openvpn", "--dev", "ovpn0", "--dev-type", "tun", "--proto", "udp4"),
                *("--local", wire_address(0, host), "--remote", wire_address(0, other)),
                *("--cert", f"{host}.crt", "--key", f"{host}.key"),
                *("--peer-fingerprint", prints[other], *side),
                *("--data-ciphers", "AES-256-GCM", "--tun-mtu", str(self.mtu_bytes)),
                *("--ifconfig", inner(host), inner(other)),
            )

    def certificate(self, host: int) -> str:
        """Its fingerprint."""
        key, file = self.folder / f"{host}.key", self.folder / f"{host}.crt"
        run(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN=host{host}"),
            *("-keyout", str(key), "-out", str(file)),
        )
        text = run("openssl", "x509", "-in", str(file), "-noout", "-fingerprint", "-sha256")
        return text.strip().partition("=")[2]
