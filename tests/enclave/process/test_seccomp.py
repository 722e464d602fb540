"""What a filtered process may not ask the kernel for, tried for real."""

import os
import subprocess
import sys

import pytest

from runtime.enclave.process.seccomp import customer_filter, worker_filter

PROGRAM = """
import ctypes, os, socket, sys
from runtime.enclave.process import seccomp
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
seccomp.install(bytes.fromhex(sys.argv[1]))
def attempt(name, action):
    try:
        action()
    except OSError as error:
        print(name, error.errno)
    else:
        print(name, "ok")
def syscall(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
attempt("vsock", lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close())
attempt("inet", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close())
attempt("unix", lambda: socket.socketpair())
attempt("io_uring", lambda: syscall(425, 0, 0))
attempt("fork", lambda: os.waitpid(os.spawnl(os.P_NOWAIT, "/nonexistent", "x"), 0))
attempt("unshare", lambda: syscall({"x86_64": 272, "aarch64": 97}[os.uname().machine], 0))
attempt("exec", lambda: os.execv("/bin/true", ["true"]))
"""

FAMILY_NOT_SUPPORTED, NOT_PERMITTED, NOT_IMPLEMENTED = "97", "1", "38"


def tried(program: bytes) -> dict[str, str]:
    run = subprocess.run([sys.executable, "-c", PROGRAM, program.hex()], capture_output=True, text=True, check=True)
    return dict(line.split(" ") for line in run.stdout.splitlines())


def test_a_customer_process_can_do_everything_but_reach_the_parent() -> None:
    outcome = tried(customer_filter(os.uname().machine))
    assert outcome == {
        "vsock": FAMILY_NOT_SUPPORTED,
        "inet": "ok",
        "unix": "ok",
        "io_uring": NOT_IMPLEMENTED,
        "fork": "ok",
        "unshare": "ok",
    }


def test_a_worker_cannot_execute_or_enter_anything_either() -> None:
    outcome = tried(worker_filter(os.uname().machine, may_reach_parent=False))
    assert outcome["vsock"] == FAMILY_NOT_SUPPORTED
    assert outcome["inet"] == outcome["unix"] == "ok"
    assert {outcome[name] for name in ("io_uring", "unshare", "exec")} == {NOT_PERMITTED}


def test_the_worker_that_speaks_with_the_provisioner_may_open_vsocks() -> None:
    assert tried(worker_filter(os.uname().machine, may_reach_parent=True))["vsock"] == tried(b"")["vsock"]


@pytest.mark.parametrize("number", [0x40000000 + 41, 0x40000000])
def test_a_call_by_the_numbers_of_another_table_ends_the_process(number: int) -> None:
    program = (
        "import ctypes, sys; from runtime.enclave.process import seccomp; libc = ctypes.CDLL(None); libc.prctl(38, 1, 0, 0, 0)\n"
    )
    program += f"seccomp.install(bytes.fromhex(sys.argv[1])); libc.syscall({number}, 40, 1, 0)"
    words = [sys.executable, "-c", program, customer_filter(os.uname().machine).hex()]
    assert subprocess.run(words, capture_output=True, check=False).returncode == -31  # SIGSYS


def test_a_machine_without_numbers_gets_no_filter_and_no_error() -> None:
    assert customer_filter("riscv64") == b""
    assert tried(b"")["fork"] == "ok"
