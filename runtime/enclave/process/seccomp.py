"""Filters on system calls (seccomp(2), BPF): what a process may not even ask the kernel for. Needs `no_new_privs`, and is for good.

A customer process may not open a vsock: it leads to the parent past every rule, and the runtime alone goes there. A worker, besides,
may not execute, trace, mount, load or enter anything. The filters refuse with an errno, so that a program sees an ordinary error; a
call by another architecture's numbers, which would get round them, ends the process.
"""

import ctypes
import os
import struct
from collections.abc import Sequence

_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_KILL_PROCESS = 0x80000000

_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; of an argument, its lower half
_AF_VSOCK = 40
_EPERM, _ENOSYS, _EAFNOSUPPORT = 1, 38, 97
_X32 = 0x40000000

_NAMES = (
    "socket", "execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "mount", "umount2", "pivot_root", "chroot",
    "setns", "unshare", "bpf", "perf_event_open", "add_key", "request_key", "keyctl", "init_module", "finit_module",
    "delete_module", "kexec_load", "reboot", "swapon", "userfaultfd", "io_uring_setup",
)  # fmt: skip
_NUMBERS = {
    "x86_64": (0xC000003E, (
        41, 59, 322, 101, 310, 311, 165, 166, 155, 161, 308, 272, 321, 298, 248, 249, 250, 175, 313, 176, 246, 169, 167, 323, 425,
    )),
    "aarch64": (0xC00000B7, (
        198, 221, 281, 117, 270, 271, 40, 39, 41, 51, 268, 97, 280, 241, 217, 218, 219, 105, 273, 106, 104, 142, 224, 282, 425,
    )),
}  # fmt: skip
"""AUDIT_ARCH and the numbers of `_NAMES`, from the kernel's asm/unistd.h of each."""

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def customer_filter(machine: str) -> bytes:
    """For a customer process on `machine` (as uname names it). io_uring, which could open the same socket, seems not built in."""
    return _compile(machine, refused={"io_uring_setup": _ENOSYS}, may_reach_parent=False)


def worker_filter(machine: str, *, may_reach_parent: bool) -> bytes:
    """For a worker. `may_reach_parent`: it opens vsocks itself."""
    refused = {name: _EPERM for name in _NAMES if name != "socket"}
    return _compile(machine, refused=refused, may_reach_parent=may_reach_parent)


def install(program: bytes) -> None:
    """Puts a filter on this thread and all that it starts. An empty one (a machine without numbers here) does nothing. Raises OSError."""
    if not program:
        return
    loaded = _Program(len(program) // 8, program)
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(loaded), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "seccomp")


def _compile(machine: str, *, refused: dict[str, int], may_reach_parent: bool) -> bytes:
    if machine not in _NUMBERS:
        return b""
    architecture, numbers = _NUMBERS[machine]
    by_name = dict(zip(_NAMES, numbers, strict=True))
    steps: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL_PROCESS),
    ]
    for name, errno in refused.items():
        steps += [(_EQUAL, 0, 1, by_name[name]), (_RETURN, 0, 0, _ERRNO | errno)]
    if not may_reach_parent:
        steps += [
            (_EQUAL, 0, 3, by_name["socket"]),
            (_LOAD, 0, 0, _FIRST_ARGUMENT),
            (_EQUAL, 0, 1, _AF_VSOCK),
            (_RETURN, 0, 0, _ERRNO | _EAFNOSUPPORT),
        ]
    steps.append((_RETURN, 0, 0, _ALLOW))
    return _assemble(steps)


def _assemble(steps: Sequence[tuple[int, int, int, int]]) -> bytes:
    """struct sock_filter { __u16 code; __u8 jt; __u8 jf; __u32 k; } for each step."""
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
