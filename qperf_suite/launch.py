"""Becomes another program, under conditions: run as a script, it imports nothing of ours.

    launch.py [--netns PATH] [--cpus 0,1] [--hide-xstate] -- COMMAND…

The program is killed when the thread that started it ends.

--hide-xstate: User Mode Linux 6.1 hands PTRACE_SETREGSET a buffer of 2696 bytes for
NT_X86_XSTATE. Linux wants the CPU's whole state, which is larger where there is AMX, answers
EFAULT, and the guest's init dies. A seccomp filter refuses that register set from the first
question on; then User Mode Linux uses PTRACE_SETFPREGS, which works everywhere and copies less.
"""

import argparse
import ctypes
import errno
import os
import signal
import struct
import sys

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x00050000, 0x7FFF0000
LOAD_WORD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06  # classic BPF: LD|W|ABS, JMP|JEQ|K, RET|K
# Offsets in struct seccomp_data (linux/seccomp.h); the low half of an argument comes first.
NUMBER, FIRST_ARGUMENT, THIRD_ARGUMENT = 0, 16, 32
SYS_PTRACE, PTRACE_GETREGSET, NT_X86_XSTATE = 101, 0x4204, 0x202
CLONE_NEWNET = 0x40000000


def xstate_filter() -> bytes:
    """A program of struct sock_filter that fails ptrace(GETREGSET, …, NT_X86_XSTATE)."""
    program = (
        (LOAD_WORD, 0, 0, NUMBER),
        (JUMP_EQUAL, 0, 5, SYS_PTRACE),
        (LOAD_WORD, 0, 0, FIRST_ARGUMENT),
        (JUMP_EQUAL, 0, 3, PTRACE_GETREGSET),
        (LOAD_WORD, 0, 0, THIRD_ARGUMENT),
        (JUMP_EQUAL, 0, 1, NT_X86_XSTATE),
        (RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.EINVAL),
        (RETURN, 0, 0, SECCOMP_RET_ALLOW),
    )
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def main() -> None:
    """Apply the conditions, then exec; exits with 2 when one cannot be met."""
    parser = argparse.ArgumentParser(prog="launch.py")
    parser.add_argument("--netns")
    parser.add_argument("--cpus")
    parser.add_argument("--hide-xstate", action="store_true")
    parser.add_argument("command", nargs="+")
    chosen = parser.parse_args()
    libc = ctypes.CDLL(None, use_errno=True)

    def call(what: str, result: int) -> None:
        if result != 0:
            sys.exit(f"launch.py: {what}: {os.strerror(ctypes.get_errno())}")

    if chosen.netns is not None:
        with open(chosen.netns, "rb") as namespace:
            call(chosen.netns, libc.setns(namespace.fileno(), CLONE_NEWNET))
    if chosen.cpus is not None:
        os.sched_setaffinity(0, {int(cpu) for cpu in chosen.cpus.split(",")})
    if chosen.hide_xstate:
        code = xstate_filter()
        kept = ctypes.create_string_buffer(code, len(code))
        program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(kept))
        call("PR_SET_NO_NEW_PRIVS", libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        call("PR_SET_SECCOMP", libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0))
    call("PR_SET_PDEATHSIG", libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    os.execvp(chosen.command[0], chosen.command)


if __name__ == "__main__":
    main()
