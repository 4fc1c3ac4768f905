"""Tell the service manager how far we are (the protocol of sd_notify(3))."""

import os
import socket
import time


def notify(*assignments: str) -> None:
    """Send "READY=1" and the like, when somebody wants to know."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
        try:
            s.sendto("\n".join(assignments).encode(), address)
        except OSError:
            return  # whoever wanted to know is gone


def ready(status: str) -> None:
    notify("READY=1", f"STATUS={status}")


def reloading() -> None:
    # systemd wants the time of the reload with Type=notify-reload.
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> None:
    notify("STOPPING=1")
