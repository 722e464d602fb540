"""`enclave status`, `logs` and `drain` against a running parent with a real enclave's link, as an operator calls them."""

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from runtime.cli import main
from runtime.commands import drain as drain_command
from runtime.commands.status import duration
from runtime.enclave.link import ParentLink
from runtime.net.endpoint import Unix, listen
from runtime.net.http import Request, Response, serve_http
from runtime.net.serve import serve
from tests.parent.running import Parent, parent

PATIENCE = 60.0
HOSTILE = b"\x1b[2Jforged \xe2\x80\xae line"


class Drains(list[int]):
    """The deadlines that an enclave was asked to drain in, and when the first one came."""

    def __init__(self) -> None:
        self.asked = trio.Event()

    def ask(self, deadline_ms: int) -> None:
        self.append(deadline_ms)
        self.asked.set()


async def enclave(*words: str) -> int:
    """The exit status of a command, run as its own program would be."""
    with trio.fail_after(PATIENCE):
        return await trio.to_thread.run_sync(main, words)


@asynccontextmanager
async def ready_enclave(folder: Path) -> AsyncIterator[tuple[Parent, ParentLink, Drains]]:
    """A parent whose enclave has booted and is ready; what it is asked to drain in."""
    drains = Drains()
    async with parent(folder) as running, running.enclave(boot_id=bytes(range(16)), on_drain=drains.ask) as link:
        link.send_state("booting")
        for elapsed, (stage, took) in enumerate((("prepare", 30), ("provision", 400), ("processes", 200)), 1):
            link.journal("info", "stage.ended", stage=stage, took_ms=took, elapsed_ms=300 * elapsed)
        link.exited("job", code=0)
        link.exited("\x1b[31mapp", signal=9)
        link.log("app", "stderr", HOSTILE)
        link.send_state("ready")
        await link.flush()
        yield running, link, drains


async def test_status_is_a_timeline_that_a_person_can_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with ready_enclave(tmp_path) as (running, _, _):
        assert await enclave("status", "--socket", running.socket) == 0
        public = running.listening.public
    shown = capsys.readouterr().out
    assert shown.startswith("app: ready, since ")
    assert "boot 000102030405060708090a0b0c0d0e0f, first heard of" in shown
    assert "link up" in shown
    assert "tickets given: 0" in shown
    stages = [line.split() for line in shown.splitlines() if "#" in line]
    assert [(name, ended, took, len(bar)) for name, ended, _, took, _, bar in stages] == [
        ("prepare", "0.300", "0.030", 1),
        ("provision", "0.600", "0.400", 18),
        ("processes", "0.900", "0.200", 9),
    ]
    assert "\x1b" not in shown
    assert "\\x1b[31mapp signal 9" in shown
    assert "job code 0" in shown
    assert "a_total  1" in shown
    assert f"public   {public}" in shown


async def test_status_as_json_holds_what_the_parent_knows_and_the_metrics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with ready_enclave(tmp_path) as (running, link, _):
        link.journal("error", "boot.failed", stage="provision", reason="revoked")
        link.send_state("failed", "revoked")
        await link.flush()
        assert await enclave("status", "--socket", f"unix:{running.socket}", "--json") == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["enclave"], status["state"], status["reason"], status["ready"]) == ("app", "failed", "revoked", False)
    assert status["metrics"] == {"a_total": 1}
    boot = status["boot"]
    assert [state["state"] for state in boot["states"]] == ["booting", "ready", "failed"]
    assert (boot["was_ready"], boot["failed_stage"]) == (True, "provision")
    assert boot["stages"][1] == {"stage": "provision", "ended_ms": 600, "took_ms": 400}
    assert [(ended["code"], ended["signal"]) for ended in boot["exits"]] == [(0, None), (None, 9)]


async def test_status_before_any_enclave_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with parent(tmp_path) as running:
        assert await enclave("status", "--socket", running.socket) == 0
    assert capsys.readouterr().out.startswith("app: no enclave has been heard of")


async def test_what_a_hostile_enclave_reports_of_its_boot_stays_bounded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with parent(tmp_path) as running, running.enclave() as link:
        for number in range(200):
            link.journal("info", "stage.ended", stage=f"stage{number}", took_ms=1, elapsed_ms=number)
            link.send_state("starting" if number % 2 else "ready")
            link.exited("app", code=number)
        link.journal("info", "stage.ended", stage="prepare", took_ms=-(2**63), elapsed_ms=2**63 - 1)
        link.journal("info", "stage.ended", stage="image", took_ms=2**63 - 1, elapsed_ms=-5)
        link.journal("info", "stage.ended", stage=b"config", took_ms="1", elapsed_ms=1)
        await link.flush()
        assert await enclave("status", "--socket", running.socket) == 0
        assert await enclave("status", "--socket", running.socket, "--json") == 0
    shown, _, as_json = capsys.readouterr().out.rpartition("\n{")
    boot = json.loads("{" + as_json)["boot"]
    assert [stage["stage"] for stage in boot["stages"]] == ["prepare", "image"]
    assert (len(boot["states"]), len(boot["exits"])) == (32, 16)
    assert max(len(line) for line in shown.splitlines()) < 200


async def test_logs_shows_what_was_seen_with_everything_hostile_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with ready_enclave(tmp_path) as (running, _, _):
        assert await enclave("logs", "--socket", running.socket) == 0
        lines = capsys.readouterr().out.splitlines()
        assert await enclave("logs", "--socket", running.socket, "--json") == 0
        records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == len(records)
    (line,) = [line for line in lines if " log app " in line]
    assert line.endswith("| \\x1b[2Jforged \\u202e line")
    assert [record["event"] for record in records if record["kind"] == "state"] == ["booting", "ready"]


async def test_logs_pages_through_more_than_one_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with ready_enclave(tmp_path) as (running, link, _):
        for number in range(40):
            link.log("app", "stdout", b"%d " % number + b"\xff" * 30_000)
        await link.flush()
        assert await enclave("logs", "--socket", running.socket) == 0
    shown = [line.partition("| ")[2] for line in capsys.readouterr().out.splitlines() if " log app " in line]
    assert [line.split()[0] for line in shown[1:]] == [str(number) for number in range(40)]


async def test_logs_follows_and_ends_with_the_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statuses: list[int] = []
    said: list[dict[str, object]] = []
    read, write = os.pipe()
    with os.fdopen(read) as printed, os.fdopen(write, "w") as standard_output:
        monkeypatch.setattr(sys, "stdout", standard_output)

        async def follow(socket: str) -> None:
            statuses.append(await enclave("logs", "--socket", socket, "--follow", "--json"))

        async def until_said(line: str) -> None:
            with trio.fail_after(PATIENCE):
                while not said or said[-1].get("line") != line:
                    said.append(json.loads(await trio.to_thread.run_sync(printed.readline, abandon_on_cancel=True)))

        async with trio.open_nursery() as nursery, ready_enclave(tmp_path) as (running, link, _):
            nursery.start_soon(follow, running.socket)
            for word in ("one", "two"):
                link.log("app", "stdout", word.encode())
                await until_said(word)
    assert statuses == [1]
    assert [each["line"] for each in said if each["kind"] == "log"][1:] == ["one", "two"]


async def test_drain_shows_how_the_enclave_stops_and_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with ready_enclave(tmp_path) as (running, link, drains), trio.open_nursery() as nursery:

        async def obey() -> None:
            await drains.asked.wait()
            link.send_state("draining")
            link.journal("info", "process_stopping", process="app")
            link.exited("app", code=0)
            link.send_state("stopped")

        nursery.start_soon(obey)
        assert await enclave("drain", "--socket", running.socket, "--deadline", "7s") == 0
        assert drains == [7000]
    shown = capsys.readouterr()
    assert shown.out.startswith("stopped after ")
    assert [line.split()[2:4] for line in shown.err.splitlines()] == [
        ["state", "draining"],
        ["journal", "process_stopping"],
        ["exit", "app"],
        ["state", "stopped"],
    ]


async def test_drain_ends_with_1_when_the_enclave_fails_or_another_boots_or_none_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with parent(tmp_path) as running:
        assert await enclave("drain", "--socket", running.socket) == 1
        assert "no enclave is connected" in capsys.readouterr().err
        async with running.enclave(on_drain=lambda _: link.send_state("failed", "worker_lost")) as link:
            assert await enclave("drain", "--socket", running.socket, "--json") == 1
            assert json.loads(capsys.readouterr().out)["state"] == "failed"

        async def boot_another() -> None:
            async with running.enclave(boot_id=b"3" * 16):
                await finished.wait()

        finished = trio.Event()
        async with (
            trio.open_nursery() as nursery,
            running.enclave(boot_id=b"2" * 16, on_drain=lambda _: nursery.start_soon(boot_another)),
        ):
            assert await enclave("drain", "--socket", running.socket) == 1
            finished.set()
        assert "another has booted" in capsys.readouterr().err


async def test_drain_ends_with_1_when_the_enclave_says_nothing_in_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_command, "LAST_WORDS", 0.1)
    async with ready_enclave(tmp_path) as (running, _, drains):
        assert await enclave("drain", "--socket", running.socket, "--deadline", "100ms") == 1
        assert drains == [100]
    assert "has not said" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "logs", "drain"])
async def test_a_parent_that_cannot_be_asked_is_said_in_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without = tmp_path / "parent.toml"
    without.write_text(
        f'version = 1\ninstance_id = "i-0"\nenclave = {{ id = "app", ingress = "unix:{tmp_path}/i" }}\n'
        '[listen]\npublic = "tcp:127.0.0.1:0"\n'
    )
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("version = 2\n")
    for words, said in (
        (("--socket", str(tmp_path / "none")), "no parent answers at unix:"),
        (("--socket", "x" * 200), "a socket's path has"),
        (("-c", str(without)), "has no listen.status"),
        (("-c", str(tmp_path / "missing.toml")), "No such file"),
        (("-c", str(wrong)), "wrong.toml"),
    ):
        assert await enclave(command, *words) == 1
        shown = capsys.readouterr()
        assert said in shown.err
        assert (shown.out, "Traceback" in shown.err) == ("", False)


async def test_the_config_of_the_parent_names_its_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with parent(tmp_path) as running:
        config = tmp_path / "parent.toml"
        config.write_text(
            f'version = 1\ninstance_id = "i-0"\nenclave = {{ id = "app", ingress = "unix:{tmp_path}/i" }}\n'
            f'listen = {{ public = "tcp:127.0.0.1:0", status = "unix:{running.socket}" }}\n'
        )
        assert await enclave("status", "-c", str(config), "--json") == 0
    assert json.loads(capsys.readouterr().out)["enclave"] == "app"


async def test_what_answers_and_is_no_parent_is_said_to_be_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def answer(_: Request) -> Response:
        await trio.lowlevel.checkpoint()
        return Response(200, (), b"<html>")

    at = tmp_path / "other"
    listener = await listen(Unix(str(at)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(listener, lambda stream: serve_http(stream, answer, max_body=0), limit=4))
        assert await enclave("status", "--socket", str(at)) == 1
        nursery.cancel_scope.cancel()
    assert "no JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (192, "3 min 12 s"), (7260, "2 h 1 min"), (5 * 86400 + 4 * 3600, "5 d 4 h")],
)
def test_durations_are_shown_in_two_units_at_most(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
