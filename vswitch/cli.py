"""The command vsw.

argparse and not a library: a dozen commands with three options need nothing more, and vsw starts
without loading anything else.

Exit status: 0 done; 1 the daemon failed while it ran, or nobody answered a ping or trace; 2 the
user's mistake, told in one message.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from mesh.errors import ConfigError
from vswitch.errors import UserError
from vswitch.model import DEFAULT_CONTROL

DESCRIPTION = "A userspace virtual switch for VMs, whose far side is an encrypted mesh."


class Parser(argparse.ArgumentParser):
    """Mistakes on the command line get one line too."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> Parser:
    top = Parser(prog="vsw", description=DESCRIPTION, allow_abbrev=False)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(parent: Any, name: str, summary: str) -> Parser:
        made: Parser = parent.add_parser(
            name, help=summary, description=summary, allow_abbrev=False
        )
        return made

    def asking(parent: Any, name: str, summary: str, asked: str) -> Parser:
        made = command(parent, name, summary)
        made.add_argument(
            "--control",
            metavar="PATH",
            default=default_control(),
            help="the daemon's control socket (default: %(default)s)",
        )
        made.add_argument("--json", action="store_true", help="print JSON")
        made.set_defaults(run=run_asking, asked=asked)
        return made

    made = command(commands, "run", "run a configuration, in the foreground")
    made.add_argument("file", metavar="FILE")
    made.set_defaults(run=run_daemon)
    made = command(commands, "check", "check a configuration, start nothing")
    made.add_argument("file", metavar="FILE")
    made.add_argument("--json", action="store_true", help="print JSON")
    made.set_defaults(run=run_check)
    asking(commands, "status", "the whole switch at a glance", "status")
    asking(commands, "ports", "ports and their state", "ports")
    asking(commands, "fdb", "MAC addresses and the ports they are behind", "fdb")
    asking(commands, "stats", "all counters, drops by reason", "stats")
    made = asking(commands, "top", "workers and queues, every second", "top")
    made.add_argument("--once", action="store_true", help="print one table, and end")
    made.set_defaults(run=run_top)
    made = command(commands, "keygen", "make a key")
    made.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="new file for the private key; the public key is printed "
        "(without FILE: private key to stdout, public key to stderr)",
    )
    made.add_argument("--json", action="store_true", help="print JSON")
    made.set_defaults(run=run_keygen)
    mesh = command(commands, "mesh", "the mesh")
    inner = mesh.add_subparsers(dest="mesh_command", metavar="COMMAND", required=True)
    asking(inner, "peers", "peers and their sessions", "mesh peers")
    asking(inner, "routes", "who owns which addresses", "mesh routes")
    made = asking(inner, "ping", "round trips to a peer, inside the session with it", "mesh ping")
    add_target(made)
    made.add_argument("-c", dest="count", metavar="COUNT", type=int, help="stop after so many")
    made.add_argument(
        "-i", dest="interval_s", metavar="SECONDS", type=float, help="between two (default: 1)"
    )
    made.add_argument(
        "-s", dest="size", metavar="BYTES", type=int, help="of the IP packet (default: 64)"
    )
    made.set_defaults(run=run_ping)
    made = asking(inner, "trace", "the nodes on the way to a peer", "mesh trace")
    add_target(made)
    made.set_defaults(run=run_trace)
    return top


def add_target(made: Parser) -> None:
    made.add_argument(
        "target",
        metavar="TARGET",
        help="a peer's public key, the beginning of it, or an address that it has",
    )


def default_control() -> str:
    return os.environ.get("VSW_CONTROL") or DEFAULT_CONTROL


def run_daemon(args: argparse.Namespace) -> int:
    from vswitch import daemon, logs  # noqa: PLC0415 - all else works without the data plane

    logs.set_up()
    reason = daemon.run(args.file)
    if reason:
        print(f"vsw: {reason}", file=sys.stderr)
    return 1 if reason else 0


def run_check(args: argparse.Namespace) -> int:
    from vswitch.config import load  # noqa: PLC0415 - libsodium, not for --help

    config = load(args.file)
    if args.json:
        print(json.dumps({"file": config.file, "ok": True}))
    else:
        print(f"{config.file}: ok")
    return 0


def run_asking(args: argparse.Namespace) -> int:
    from vswitch import views  # noqa: PLC0415 - as above
    from vswitch.control import ask  # noqa: PLC0415 - as above

    answer = ask(args.control, args.asked)
    if args.json:
        print(json.dumps(answer, indent=2))
    else:
        view: Callable[[Any], str] = getattr(views, args.asked.replace(" ", "_"))
        print(view(answer))
    return 0


def run_top(args: argparse.Namespace) -> int:
    from vswitch import top  # noqa: PLC0415 - as above
    from vswitch.control import ask  # noqa: PLC0415 - as above

    return top.run(lambda: ask(args.control, args.asked), once=args.once, as_json=args.json)


def run_ping(args: argparse.Namespace) -> int:
    from vswitch import meshping  # noqa: PLC0415 - as above
    from vswitch.control import ask_on  # noqa: PLC0415 - as above

    request = {"command": args.asked, "target": args.target}
    options = ("count", "interval_s", "size")
    request |= {key: value for key in options if (value := getattr(args, key)) is not None}
    return meshping.run(ask_on(args.control, request), as_json=args.json)


def run_trace(args: argparse.Namespace) -> int:
    from vswitch import meshtrace  # noqa: PLC0415 - as above
    from vswitch.control import ask_on  # noqa: PLC0415 - as above

    rows = ask_on(args.control, {"command": args.asked, "target": args.target})
    return meshtrace.run(rows, as_json=args.json)


def run_keygen(args: argparse.Namespace) -> int:
    from mesh.identity import KEY_BYTES, Identity, encode_key  # noqa: PLC0415 - as above
    from mesh.keyfile import write_private_key  # noqa: PLC0415 - as above

    seed = os.urandom(KEY_BYTES)
    public = encode_key(Identity(seed).public_key)
    answer = {"public_key": public}
    if args.file is not None:
        write_private_key(args.file, seed)
        answer["file"] = args.file
    else:
        answer["private_key"] = encode_key(seed)
    if args.json:
        print(json.dumps(answer))
    elif args.file is not None:
        print(public)
    else:
        print(answer["private_key"])
        print(public, file=sys.stderr)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The console script.  Returns the exit status."""
    args = parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        status = run(args)
        sys.stdout.flush()
    except (UserError, ConfigError) as e:
        print(f"vsw: {e}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader (head, less) has seen enough; keep the interpreter from flushing again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


if __name__ == "__main__":
    sys.exit(main())
