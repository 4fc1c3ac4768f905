"""What a file descriptor from a front-end is, and how to use it without ever waiting for anybody.

A front-end shares the open file behind each descriptor that it sends: it can clear O_NONBLOCK at
any time.  It may also send a file whose file system it serves itself, and then every system call
that asks that file system something may hang.  So nothing is asked of a file before it is known
to be one of the kernel's own kinds.
"""

import fcntl
import os

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


def own_kick(fd: int) -> int:
    """fd, if it can be watched: who begins to watch a file asks it for its state, and only the
    kernel's own kinds are sure to answer at once."""
    if not name(fd).startswith((EVENT, PIPE)):
        raise RefusedError("the kick descriptor is neither an event counter nor a pipe")
    return fd


def own_signal(fd: int) -> int:
    """fd, or another instead of it, which can be told something without waiting; see call.h.

    fd is closed if another one is returned.
    """
    kind = name(fd)
    if kind == EVENT:
        return fd
    if not kind.startswith(PIPE):
        raise RefusedError("the call descriptor is neither an event counter nor a pipe")
    own = own_pipe(fd, os.O_WRONLY)
    os.close(fd)
    return own
