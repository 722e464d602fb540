"""The heartbeat against parents that refuse, stall, close and answer nonsense, over a socket that stands for vsock."""

import errno
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from runtime.enclave.init.heartbeat import HEARTBEAT, HEARTBEAT_PORT, HEARTBEAT_SECONDS, PARENT_CID, send_heartbeat
from runtime.enclave.init.steps import StepFailed, take
from runtime.net import endpoint

ROOT = Path(__file__).parents[3]


class Parent:
    """The other end of one heartbeat: `play` is what it does with its end, in a thread of its own."""

    def __init__(self, play: Callable[[socket.socket], None]) -> None:
        self._play = play
        self._threads: list[threading.Thread] = []
        self.calls = 0

    def connect(self, seconds: float) -> socket.socket:
        assert 0 < seconds <= HEARTBEAT_SECONDS
        self.calls += 1
        ours, theirs = socket.socketpair()

        def play() -> None:
            with closing(theirs):
                self._play(theirs)

        self._threads.append(threading.Thread(target=play))
        self._threads[-1].start()
        return ours

    def join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=10)
            assert not thread.is_alive()


def answering(answer: bytes) -> Callable[[socket.socket], None]:
    def play(stream: socket.socket) -> None:
        assert stream.recv(16) == HEARTBEAT
        stream.sendall(answer)
        with suppress(ConnectionResetError):  # which it is when the enclave left something unread
            assert stream.recv(16) == b"", "the enclave closes, and sends nothing more"

    return play


def closing_at_once(stream: socket.socket) -> None:
    stream.recv(1)


def resetting(stream: socket.socket) -> None:
    """What is unread when a unix socket closes makes the other end's read fail with ECONNRESET, as a reset over vsock does."""
    stream.recv(1, socket.MSG_PEEK)


def silent(stream: socket.socket) -> None:
    assert stream.recv(1) == HEARTBEAT
    assert stream.recv(1) == b"", "the enclave gave up"


FAILURES: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "another byte": (answering(b"\xb8"), "heartbeat_wrong"),
    "another byte before the right one": (answering(b"\x00\xb7"), "heartbeat_wrong"),
    "no byte": (closing_at_once, "heartbeat_closed"),
    "a reset": (resetting, "heartbeat_closed"),
    "silence": (silent, "heartbeat_timeout"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_what_a_parent_does_wrong_has_its_own_reason_and_is_not_tried_again(what: str) -> None:
    play, reason = FAILURES[what]
    parent = Parent(play)
    with pytest.raises(StepFailed) as caught:
        send_heartbeat(parent.connect, seconds=0.2 if what == "silence" else HEARTBEAT_SECONDS)
    parent.join()
    assert (caught.value.reason, parent.calls) == (reason, 1)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionResetError(errno.ECONNRESET, "nobody listens, says vsock"), "heartbeat_unavailable"),
        (OSError(errno.EAFNOSUPPORT, "no vsock"), "heartbeat_unavailable"),
        (TimeoutError("timed out"), "heartbeat_timeout"),
    ],
)
def test_a_parent_that_is_not_there_has_its_own_reason(error: OSError, reason: str) -> None:
    def refuse(seconds: float) -> socket.socket:
        raise error

    with pytest.raises(StepFailed) as caught:
        send_heartbeat(refuse)
    assert caught.value.reason == reason


def test_a_connection_that_took_all_the_time_leaves_none_for_the_answer() -> None:
    parent = Parent(lambda stream: None)
    with pytest.raises(StepFailed) as caught:
        send_heartbeat(parent.connect, seconds=1e-9)
    parent.join()
    assert caught.value.reason == "heartbeat_timeout"


@pytest.mark.parametrize("answer", [b"\xb7", b"\xb7and more"], ids=["alone", "with more behind it"])
def test_the_echo_is_all_that_is_wanted(answer: bytes) -> None:
    parent = Parent(answering(answer))
    assert send_heartbeat(parent.connect)
    parent.join()
    assert parent.calls == 1


def test_no_failure_of_the_heartbeat_ends_the_boot() -> None:
    parent = Parent(closing_at_once)
    report = take([("heartbeat", lambda: send_heartbeat(parent.connect)), ("console", lambda: True)])
    parent.join()
    assert [failure.reason for failure in report.failures] == ["heartbeat_closed"]
    assert report.taken == ("console",)


def test_it_goes_to_the_platforms_port_on_the_parent() -> None:
    assert (PARENT_CID, HEARTBEAT_PORT) == (endpoint.PARENT_CID, 9000)


LOADED_BEFORE = """
import sys
sys.path.insert(0, sys.argv[1])
from runtime.enclave.init import early
print(*sorted(name for name in sys.modules if name.partition(".")[0] not in sys.stdlib_module_names))
"""


def test_nothing_but_pythons_own_modules_is_loaded_before_the_heartbeat() -> None:
    """The interpreter is started without site packages, so what is listed is what the early steps import."""
    finished = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LOADED_BEFORE, str(ROOT)], capture_output=True, text=True, check=True, env={}
    )
    loaded = set(finished.stdout.split()) - {"__main__"}
    assert loaded == {
        "runtime",
        "runtime.enclave",
        "runtime.enclave.init",
        *(f"runtime.enclave.init.{name}" for name in ("early", "heartbeat", "kernel", "machine", "modules", "mounts")),
        *(f"runtime.enclave.init.{name}" for name in ("network", "ramdisk", "steps")),
    }


def test_the_program_begins_before_it_imports_anything_else() -> None:
    """The entry point itself imports nothing at its top but the early steps; in an image there is nothing else that could."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import runtime.enclave.__main__; print(*sys.modules)"
    finished = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(ROOT)], capture_output=True, text=True, check=True, env={}
    )
    loaded = set(finished.stdout.split())
    assert "runtime.enclave.init.early" in loaded
    assert not loaded & {"trio", "cryptography", "OpenSSL", "h11", "attr", "runtime.enclave.config", "runtime.enclave.boot"}
