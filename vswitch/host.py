"""What the configuration wants of this machine, looked at without starting or changing anything."""

import grp
import os
import stat
from pathlib import Path

from vswitch.errors import Place, UserError
from vswitch.model import (
    RUN_DIRECTORY,
    Config,
    Control,
    TapPort,
    VhostUserPort,
    Workers,
    port_key,
)

# sockaddr_un.sun_path has 108 bytes, one of them for the end.
SOCKET_PATH_BYTES_MAX = 107
CAP_NET_ADMIN = 12


def check_host(config: Config) -> None:
    """Raise UserError for the first thing that this machine cannot give."""
    check_cpus(config.workers, Place(config.file, "workers.cpus"))
    check_control(config.control, config.file)
    for bridge, port in config.ports():
        key = port_key(bridge, port)
        match port:
            case VhostUserPort():
                check_socket(
                    port.path, Place(config.file, f"{key}.path"), makes=port.mode == "server"
                )
                check_group(port.socket_group, Place(config.file, f"{key}.socket_group"))
            case TapPort():
                check_tap(port.interface, Place(config.file, f"{key}.interface"))


def allowed_cpus() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def check_cpus(workers: Workers, place: Place) -> None:
    allowed = allowed_cpus()
    listed = ", ".join(str(cpu) for cpu in allowed)
    for cpu in workers.cpus:
        if cpu in allowed:
            continue
        exists = Path(f"/sys/devices/system/cpu/cpu{cpu}").exists()
        what = "is not one that this process may use" if exists else "does not exist here"
        raise UserError(f"CPU {cpu} {what}", f"choose from {listed}", place)


def check_control(control: Control, file: str) -> None:
    check_socket(control.path, Place(file, "control"), makes=True)
    check_group(control.group, Place(file, "control_group"))


def check_socket(path: str, place: Place, makes: bool) -> None:
    """A path where a socket is (makes: shall be made by us)."""
    length_bytes = len(os.fsencode(path))
    if length_bytes > SOCKET_PATH_BYTES_MAX:
        raise UserError(
            f"{path} is {length_bytes} bytes long, and the kernel takes {SOCKET_PATH_BYTES_MAX}",
            "choose a shorter path",
            place,
        )
    directory = os.path.dirname(path)
    try:
        status = os.stat(directory)
    except FileNotFoundError:
        if directory == RUN_DIRECTORY and os.geteuid() == 0:
            return  # make_run_directory() will
        raise UserError(
            f"there is no directory {directory}",
            f"make it with mkdir -p {directory}, or correct the path",
            place,
        ) from None
    except OSError as e:
        raise UserError(
            f"cannot look into {directory}: {e.strerror}",
            f"let uid {os.geteuid()} search it, or correct the path",
            place,
        ) from None
    if not stat.S_ISDIR(status.st_mode):
        raise UserError(f"{directory} is not a directory", "correct the path", place)
    wanted = os.X_OK | (os.W_OK if makes else 0)
    if not os.access(directory, wanted, effective_ids=True):
        verb = "make sockets in" if makes else "search"
        raise UserError(
            f"no permission for uid {os.geteuid()} to {verb} {directory}",
            "give it that permission, or choose another directory",
            place,
        )
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as e:
        raise UserError(f"cannot look at {path}: {e.strerror}", "correct the path", place) from None
    if makes and not stat.S_ISSOCK(status.st_mode):
        raise UserError(
            f"{path} exists and is not a socket", "remove it, or choose another path", place
        )
    if not makes and not (stat.S_ISSOCK(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        raise UserError(f"{path} is not a socket", "name the socket that the VM listens on", place)


def make_run_directory(config: Config) -> None:
    """Make our own place for sockets, which every boot empties, when a socket shall be there."""
    if any(os.path.dirname(path) == RUN_DIRECTORY for path in config.sockets()):
        try:
            os.makedirs(RUN_DIRECTORY, mode=0o755, exist_ok=True)
        except OSError as e:
            raise UserError(
                f"cannot make {RUN_DIRECTORY}: {e.strerror}",
                f"make it for uid {os.geteuid()}, or choose other paths",
                Place(config.file),
            ) from None


def check_group(group: str | None, place: Place) -> None:
    if group is None:
        return
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        raise UserError(f'there is no group "{group}"', "name an existing group", place) from None
    if os.geteuid() != 0 and gid != os.getegid() and gid not in os.getgroups():
        raise UserError(
            f'uid {os.geteuid()} is not in the group "{group}"',
            "name a group that it is in, or add it to this one",
            place,
        )


def has_capability(number: int) -> bool:
    """Whether this process has a capability (capabilities(7)) in effect."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def check_tap(interface: str, place: Place) -> None:
    device = Path("/dev/net/tun")
    if not device.exists():
        raise UserError(
            "this machine has no /dev/net/tun",
            "load the module tun, or leave the tap port out",
            place,
        )
    if not os.access(device, os.R_OK | os.W_OK, effective_ids=True):
        raise UserError(
            f"no permission for uid {os.geteuid()} to open /dev/net/tun",
            "give it read and write permission",
            place,
        )
    link = Path("/sys/class/net") / interface
    if not link.exists():
        if not has_capability(CAP_NET_ADMIN):
            raise UserError(
                f"there is no interface {interface}, and making it needs CAP_NET_ADMIN",
                f"make it with ip tuntap add {interface} mode tap vnet_hdr user {os.geteuid()}",
                place,
            )
        return
    flags = link / "tun_flags"
    # linux/if_tun.h: IFF_TAP is 2.
    if not flags.exists() or not int(flags.read_text(), 16) & 2:
        raise UserError(f"the interface {interface} is not a tap", "choose another name", place)
    owner = int((link / "owner").read_text())
    if owner != os.geteuid() and not has_capability(CAP_NET_ADMIN):
        raise UserError(
            f"the tap {interface} is not owned by uid {os.geteuid()}",
            f"make it with ip tuntap add {interface} mode tap vnet_hdr user {os.geteuid()}",
            place,
        )
