"""What a file descriptor from a front-end is, and how to use it without ever waiting for anybody.

A front-end shares the open file behind each descriptor that it sends: it can clear O_NONBLOCK at
any time.  It may also send a file whose file system it serves itself, and then every system call
that asks that file system something may hang.  So nothing is asked of a file before it is known
to be one of the kernel's own kinds.
"""

import fcntl
import os
import socket

from vhost.errors import RefusedError

EVENT = "anon_inode:[eventfd]"
PIPE = "pipe:["
SOCKET = "socket:["


def name(fd: int) -> str:
    """What the kernel calls the file; asks no file system.  Those of its own kinds have names that
    no path can be: a path starts with a slash."""
    return os.readlink(f"/proc/self/fd/{fd}")


def memory_file(fd: int) -> tuple[int, int]:
    """Device and inode.  Raises RefusedError for what is not memory: only that has seals."""
    try:
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        raise RefusedError(
            "a region is no memory file (memfd, tmpfs, hugetlbfs): give the VM shared memory"
        ) from None
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def own_pipe(fd: int, flags: int) -> int:
    """A descriptor of the same pipe whose flags are ours alone; flags: os.O_RDONLY or O_WRONLY."""
    try:
        return os.open(f"/proc/self/fd/{fd}", flags | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise RefusedError(f"cannot open the pipe anew: {error.strerror}") from error


def check_signal(fd: int) -> None:
    """Raises RefusedError unless fd can be watched, and told something, without waiting: who begins
    to watch a file asks it for its state, and only the kernel's own kinds are sure to answer.  User
    Mode Linux calls its socket pairs pipes."""
    if name(fd) != EVENT and not is_unix_socket(fd):
        raise RefusedError("the descriptor is neither an event counter nor a UNIX socket")


def is_unix_socket(fd: int) -> bool:
    if not name(fd).startswith(SOCKET):
        return False
    # The family is named, or Python would ask for the socket's own address, which not every family
    # has.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=os.dup(fd)) as sock:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) == socket.AF_UNIX
