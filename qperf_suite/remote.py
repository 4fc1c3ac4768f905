"""Guests that run already, reached by ssh: an inventory instead of guests booted here.

    [guests.bridge.a1]            system, guest; the first letter of a guest is its host
    ssh = "root@192.0.2.10"
    address = "10.5.0.1"          under which the other guests reach it
    port = 22
    key = "~/.ssh/id_ed25519"
    known_hosts = "hosts"         hosts that are not in it are added

Port, key and known_hosts may be left out, and are ssh's own choice then.
"""

import ipaddress
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from qperf_suite.agent import CommandResult
from qperf_suite.errors import GuestError, UsageError
from qperf_suite.image import pingpong
from qperf_suite.leftovers import PREFIX
from qperf_suite.plans import Part, Plan
from qperf_suite.progress import Progress
from qperf_suite.runner import Boot
from qperf_suite.store import Store
from qperf_suite.system import Machine, Seat, System
from qperf_suite.workloads import PINGPONG, SERVERS, TESTS, Case

CONNECT_TIMEOUT_S = 5
GRACE_S = 10.0
SSH_FAILED = 255
REMOTE_PREFIX = "qperf-suite-"
TOOLS_ALWAYS = ("timeout", "setsid", "pkill")


@dataclass(frozen=True)
class Login:
    """Where a guest is. address: for the other guests; None leaves a file to ssh."""

    ssh: str
    address: str
    port: int = 22
    key: str | None = None
    known_hosts: str | None = None


Inventory = Mapping[str, Mapping[str, Login]]


class SshGuest:
    """A machine that runs commands over one ssh connection, kept open between them."""

    session = None

    def __init__(self, name: str, login: Login, folder: Path) -> None:
        self.name = name
        self._login = login
        self._control = folder / f"{name}.ssh"
        self._programs = ""
        self._servers: set[str] = set()

    def run(
        self, command: str, timeout_s: float = 10.0, standard_input: bytes = b""
    ) -> CommandResult:
        """Run a shell command; raises GuestError when the guest cannot be reached."""
        found = f"PATH=$PATH:{self._programs}; {command}" if self._programs else command
        limited = f"timeout -s KILL {max(1, round(timeout_s))} sh -c {shlex.quote(found)}"
        try:
            done = subprocess.run(
                [*self._ssh(), self._login.ssh, limited],
                input=standard_input,
                capture_output=True,
                timeout=timeout_s + GRACE_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise GuestError(f"guest {self.name} ({self._login.ssh}) does not answer") from error
        stdout, stderr = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        if done.returncode == SSH_FAILED:
            said = stderr.strip().splitlines() or ["the connection broke"]
            raise GuestError(f"guest {self.name} ({self._login.ssh}): {said[-1]}")
        return CommandResult(command, done.returncode, stdout, stderr)

    def wait_ready(self) -> None:
        """Connect; raises GuestError."""
        self.check("true")

    def check(self, command: str, timeout_s: float = 10.0) -> str:
        """Run a command that has to succeed; returns its output, raises GuestError."""
        result = self.run(command, timeout_s)
        if not result.ok:
            raise GuestError(f"guest {self.name}: {command}: {result.words}")
        return result.stdout

    def spawn(self, command: str) -> None:
        """Start a command that goes on in the background, in a session of its own."""
        self._servers.add(command.split(maxsplit=1)[0])
        self.run(f"setsid {command} </dev/null >/dev/null 2>&1 &")

    def install(self, name: str, program: bytes) -> None:
        """Copy a program, which commands find from now on; it is ended and removed by close.

        What a killed run left is removed: its folder is called after this guest, too.
        """
        folder = f"${{TMPDIR:-/tmp}}/{REMOTE_PREFIX}{self.name}"
        made = self.check(f'rm -rf "{folder}".*; mktemp -d "{folder}.XXXXXX"')
        self._programs = shlex.quote(made.strip())
        path = f"{self._programs}/{shlex.quote(name)}"
        copied = self.run(f"cat >{path} && chmod 755 {path}", standard_input=program)
        if not copied.ok:
            raise GuestError(f"guest {self.name}: {name} cannot be copied: {copied.words}")

    def close(self) -> None:
        """End what was started, remove what was installed, and end the connection."""
        with suppress(GuestError):
            if self._servers:
                self.run("; ".join(f"pkill -9 -x {name}" for name in sorted(self._servers)))
            if self._programs:
                self.run(f"rm -r {self._programs}")
        self._servers.clear()
        self._programs = ""
        subprocess.run(
            [*self._ssh(), "-O", "exit", self._login.ssh], capture_output=True, check=False
        )

    def _ssh(self) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": CONNECT_TIMEOUT_S,
            "ControlMaster": "auto",
            "ControlPath": self._control,
            "ControlPersist": 60,
            "LogLevel": "ERROR",
            "ServerAliveCountMax": 2,
            "ServerAliveInterval": 2,
            "StrictHostKeyChecking": "accept-new",
        }
        if self._login.key is not None:
            options |= {"IdentityFile": self._login.key, "IdentitiesOnly": "yes"}
        if self._login.known_hosts is not None:
            options["UserKnownHostsFile"] = self._login.known_hosts
        arguments = ["ssh", "-p", str(self._login.port)]
        for name, value in options.items():
            arguments += ["-o", f"{name}={value}"]
        return arguments


class RemoteSystem(System):
    """The guests of one system of an inventory; the network between them is somebody else's.

    program: pingpong, copied to every guest; None where it is not needed.
    """

    def __init__(
        self, name: str, logins: Mapping[str, Login], folder: Path, program: bytes | None
    ) -> None:
        self._name = name
        self._pingpong = program
        self._guests = {
            guest: SshGuest(f"{name}-{guest}", login, folder) for guest, login in logins.items()
        }
        self._seats = {
            guest: Seat(remote, logins[guest].address) for guest, remote in self._guests.items()
        }

    def start(self, stack: ExitStack) -> None:
        """Nothing starts; connections are ended by the stack."""
        for guest in self._guests.values():
            stack.callback(guest.close)

    def seats(self) -> list[Seat]:
        """Every guest."""
        return list(self._seats.values())

    def seat(self, guest: str, case: Case) -> Seat:
        """The same guest in every case."""
        return self._seats[guest]

    def options(self) -> list[str]:
        """What the guests say of themselves."""
        kernels = {seat.guest.check("uname -sr").strip() for seat in self.seats()}
        return [f"{self._name}: guests reached by ssh, {', '.join(sorted(kernels))}"]

    def wait_ready(self) -> None:
        """Connect, copy, then start the tools' servers."""
        if self._pingpong is not None:
            for guest in self._guests.values():
                guest.install("pingpong", self._pingpong)
        super().wait_ready()

    def restart_servers(self, guest: Machine) -> None:
        """Start the tools' servers anew."""
        guest.run("pkill -9 -x qperf; pkill -9 -x iperf3; pkill -9 -x pingpong")
        for server in SERVERS:
            if self._pingpong is not None or not server.startswith("pingpong"):
                guest.spawn(server)


def read_inventory(path: Path) -> Inventory:
    """UsageError names what is wrong with it."""
    try:
        found = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"--inventory {path}: {error}") from error
    systems = found.get("guests")
    if not isinstance(systems, dict) or not systems:
        raise UsageError(f"--inventory {path}: there is no [guests.SYSTEM.GUEST]")
    inventory: dict[str, dict[str, Login]] = {}
    for name, guests in systems.items():
        if not isinstance(guests, dict):
            raise UsageError(f"--inventory {path}: guests.{name} is not a table")
        inventory[name] = {
            guest: _login(f"{path}: guests.{name}.{guest}", entry)
            for guest, entry in guests.items()
        }
        # They become names of files, here and there.
        for part in (name, *guests):
            if not re.fullmatch(r"\w[\w-]*", part, re.ASCII):
                raise UsageError(
                    f"--inventory {path}: {part!r} is no name: letters, digits, - and _"
                )
    return inventory


def fitting(plan: Plan, inventory: Inventory) -> Plan:
    """What of a plan has all its guests in every system."""
    shared = set.intersection(*(set(guests) for guests in inventory.values()))
    fits = plan.only(lambda case: shared >= {guest for pair in case.pairs for guest in pair})
    if not fits.parts:
        raise UsageError("--inventory: no case of the plan has all its guests in every system")
    return replace(fits, systems=list(inventory), pin=False)


def preflight(plan: Plan, inventory: Inventory) -> Plan:
    """Look at every guest that will be needed; UsageError lists all that is missing.

    Returns the plan, without pingpong when a guest's CPU cannot run what is compiled here.
    """
    if not shutil.which("ssh"):
        raise UsageError("--inventory needs ssh: apt-get install openssh-client")
    tools = {TESTS[case.test].tool for case in plan.cases} - {PINGPONG}
    guests = sorted({guest for part in plan.parts for guest in part.guests})
    wrong, machines = [], set()
    with _folder() as folder:
        for system, logins in inventory.items():
            for guest in guests:
                remote = SshGuest(f"{system}-{guest}", logins[guest], folder)
                try:
                    wrong += [
                        f"guest {remote.name} ({logins[guest].ssh}): {tool} is not installed"
                        for tool in (*TOOLS_ALWAYS, *sorted(tools))
                        if not remote.run(f"command -v {tool}").ok
                    ]
                    machines.add(remote.check("uname -m").strip())
                except GuestError as error:
                    wrong.append(str(error))
                finally:
                    remote.close()
    if wrong:
        raise UsageError("\n  ".join(["these guests cannot be measured:", *wrong]))
    if machines == {os.uname().machine}:
        return plan
    able = plan.only(lambda case: case.test != PINGPONG)
    if not able.parts:
        raise UsageError(f"--inventory: pingpong is for {os.uname().machine}, not {machines}")
    return able


def booting(inventory: Inventory) -> Boot:
    """In place of booting: connecting."""

    @contextmanager
    def connected(
        plan: Plan, part: Part, store: Store, progress: Progress
    ) -> Iterator[Mapping[str, System]]:
        with ExitStack() as stack:
            folder = stack.enter_context(_folder())
            needed = any(case.test == PINGPONG for case in part.cases)
            program = pingpong().read_bytes() if needed else None
            systems = {
                name: RemoteSystem(
                    name,
                    {guest: inventory[name][guest] for guest in part.guests},
                    folder,
                    program,
                )
                for name in plan.systems
            }
            for system in systems.values():
                system.start(stack)
                system.wait_ready()
            options = [line for system in systems.values() for line in system.options()]
            store.note({"part": part.name, "options": options})
            yield systems

    return connected


@contextmanager
def _folder() -> Iterator[Path]:
    """For the sockets of connections, with a short name."""
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _login(where: str, entry: object) -> Login:
    if not isinstance(entry, dict):
        raise UsageError(f"--inventory {where} is not a table")
    for key, value in entry.items():
        if key != "port" and not isinstance(value, str):
            raise UsageError(f"--inventory {where}: {key} is not a string")
    try:
        login = Login(**entry)
        ipaddress.IPv4Address(login.address)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--inventory {where}: {error}") from error
    # What begins like an option would be one to ssh.
    if type(login.port) is not int or not re.fullmatch(r"[\w.]+[\w.@:-]*", login.ssh):
        raise UsageError(f'--inventory {where}: ssh is "user@host", and port a number')
    return login
