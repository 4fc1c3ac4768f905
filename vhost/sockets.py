"""Listening and connecting UNIX sockets, with every way to fail said in the user's words."""

import contextlib
import errno
import grp
import os
import socket
import stat
from dataclasses import dataclass

from vhost.errors import VhostError

MAX_PATH_BYTES = 107  # sun_path without its end (unix(7))
BACKLOG = 8


def check_path(path: str) -> None:
    """What can be said before anything is tried."""
    length = len(os.fsencode(path))
    if length > MAX_PATH_BYTES:
        raise VhostError(
            f"{path}: a socket's path may have {MAX_PATH_BYTES} bytes, this one has {length}; "
            "use a shorter directory or a symbolic link to it"
        )
    directory = os.path.dirname(path) or "."
    try:
        is_directory = stat.S_ISDIR(os.stat(directory).st_mode)
    except PermissionError:
        raise VhostError(f"{path}: no permission to look into {directory}; grant it") from None
    except OSError:
        is_directory = False
    if not is_directory:
        raise VhostError(f"{path}: directory {directory} does not exist; create it first")


@dataclass(frozen=True)
class Listener:
    """A listening socket and the file it stands for."""

    sock: socket.socket
    path: str
    inode: int

    def close(self) -> None:
        """Closes, and removes the file unless somebody else put another one there."""
        self.sock.close()
        with contextlib.suppress(OSError):
            if os.stat(self.path, follow_symlinks=False).st_ino == self.inode:
                os.unlink(self.path)


def listen(path: str, mode: int, group: str | None) -> Listener:
    """Bind and listen.  Raises VhostError with what to do about it."""
    check_path(path)
    gid = _group_id(path, group)
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.bind(path)
        # Nobody can connect before listen(), so nobody sees the file as bind() made it.
        if gid is not None:
            os.chown(path, -1, gid)
        os.chmod(path, mode)
        sock.listen(BACKLOG)
        return Listener(sock, path, os.stat(path, follow_symlinks=False).st_ino)
    except OSError as error:
        sock.close()
        raise VhostError(_explain(path, error)) from error


def connect(path: str) -> socket.socket:
    """Raises OSError when nobody listens (yet)."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def explain_connect(error: OSError) -> str:
    """Why a connection does not come about, for the status."""
    if error.errno == errno.ENOENT:
        return "the socket does not exist yet"
    if error.errno == errno.ECONNREFUSED:
        return "nobody listens at the socket"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "no permission to connect to the socket (write permission is needed)"
    return os.strerror(error.errno or 0)


def _group_id(path: str, group: str | None) -> int | None:
    if group is None:
        return None
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise VhostError(f"{path}: there is no group {group}") from None


def _remove_stale(path: str) -> None:
    """A socket that nobody listens at was left by a process that was killed."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return
    except OSError as error:
        raise VhostError(_explain(path, error)) from error
    if not stat.S_ISSOCK(found.st_mode):
        raise VhostError(f"{path}: exists and is no socket; remove it or choose another path")
    try:
        connect(path).close()
    except ConnectionRefusedError:
        try:
            os.unlink(path)
        except OSError as error:
            raise VhostError(_explain(path, error)) from error
        return
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise VhostError(_explain(path, error)) from error
    raise VhostError(f"{path}: another process listens here; stop it or choose another path")


def _explain(path: str, error: OSError) -> str:
    directory = os.path.dirname(path) or "."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{path}: no permission to make a socket in {directory}; grant write access to it"
    return f"{path}: {os.strerror(error.errno or 0)}"
