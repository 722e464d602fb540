"""The programs of a simulation, each a process of its own in a session of its own, its standard error in a log file."""

import signal
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE  # noqa: TID251 - constants; the process is trio's

import trio

STOP_SECONDS = 30.0
_TAIL_LINES = 12
_LINE_MAX = 1 << 20
"""Bytes of a line that has no end, as a machine's console may have."""


class Program:
    """One running program."""

    def __init__(self, name: str, process: trio.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        """Its exit status; negative for a signal."""
        return await self._process.wait()

    async def lines(self) -> AsyncGenerator[str]:
        """What it writes to standard output, line by line."""
        assert self._process.stdout is not None
        rest = b""
        async for chunk in self._process.stdout:
            *lines, rest = (rest + bytes(chunk)).split(b"\n")
            for line in lines:
                yield line.decode(errors="backslashreplace")
            if len(rest) > _LINE_MAX:
                yield rest.decode(errors="backslashreplace")
                rest = b""

    async def first_line(self) -> str | None:
        """The first line that it writes; None when it ends without one."""
        async with aclosing(self.lines()) as lines:
            async for line in lines:
                return line
        return None

    async def stop(self) -> None:
        """TERM, then KILL when it takes too long."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            with trio.move_on_after(STOP_SECONDS):
                await self._process.wait()
            self._process.kill()
        await self._process.wait()

    def tail(self) -> str:
        """The end of its log, for a person who wonders why it ended."""
        lines = self.log.read_text(errors="backslashreplace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:])


@asynccontextmanager
async def running(
    name: str,
    command: list[str],
    logs: Path,
    *,
    json_on_stderr: bool = False,
    interpreter: Sequence[str] = (sys.executable,),
    environment: Mapping[str, str] | None = None,
) -> AsyncGenerator[Program]:
    """Runs this interpreter, or another, with `command`; the program is stopped when the block ends, cancelled or not.

    `json_on_stderr`: what `Program.lines` gives is its standard error, and there is no log file but what the caller keeps.
    `environment`: in place of this program's own.
    """
    log = logs / f"{name}.log"
    log.write_bytes(b"")
    with log.open("ab") as file:
        process = await trio.lowlevel.open_process(
            [*interpreter, *command],
            env=environment,
            stdin=DEVNULL,
            stdout=file if json_on_stderr else PIPE,
            stderr=PIPE if json_on_stderr else file,
            start_new_session=True,
        )
    if json_on_stderr:
        process.stdout, process.stderr = process.stderr, None  # one stream to follow, whichever it is
    program = Program(name, process, log)
    try:
        yield program
    finally:
        with trio.CancelScope(shield=True):
            await program.stop()
            if process.stdout is not None:
                await process.stdout.aclose()
