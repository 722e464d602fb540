"""Faults of a run: processes that cannot start, end or fall ill."""

import os
import signal

import trio

from tests.scenarios.faults.fault import Act, Fault
from tests.scenarios.faults.of_the_machine import then
from tests.scenarios.faults.site import Site


def process(command: str, more: str = "") -> str:
    """A process that has a secret, and these other keys."""
    return f"""
[[process]]
name = "app"
command = {command}
user = "1000:1000"
secrets = ["API_TOKEN"]
{more}
"""


def script(text: str) -> str:
    """A command that shows its secret before it does anything else."""
    return f'["sh", "-c", "echo the token is $API_TOKEN; {text}"]'


async def kill_the_app(site: Site) -> None:
    os.kill(await site.pid_of("app"), signal.SIGKILL)


async def fall_ill(site: Site) -> None:
    (site.layout.enclave / "sick").touch()


async def recover(site: Site) -> None:
    (site.layout.enclave / "sick").unlink()


async def ask_to_end(site: Site) -> None:
    await site.says("the token is")
    site.parent.control.drain(20_000)


def written(name: str, text: str, mode: int) -> Act:
    """A file in the working directory of the processes."""

    async def prepare(site: Site) -> None:
        await trio.lowlevel.checkpoint()
        file = site.layout.enclave / name
        file.write_text(text)
        file.chmod(mode)

    return prepare


async def no_secrets(site: Site) -> None:
    await trio.lowlevel.checkpoint()
    site.register(secrets={})


OF_PROCESSES = (
    Fault(name="a promised secret is not released", reason="secret_missing", prepare=no_secrets),
    Fault(name="a command is missing", reason="command_missing", tables=process('["/no/such/program"]')),
    Fault(
        name="a command may not be executed",
        reason="command_not_executable",
        tables=process('["./program"]'),
        prepare=written("program", "#!/bin/sh\n", 0o644),
    ),
    Fault(
        name="a command is no program",
        reason="command_format",
        tables=process('["./program"]'),
        prepare=written("program", "\x7fELF, but not really", 0o755),
    ),
    Fault(name="a working directory is missing", reason="spawn_failed", tables=process('["true"]', 'workdir = "/no/such/folder"')),
    Fault(
        name="a process ends at once and is not to be started again",
        reason="process_failed",
        tables=process(script("exit 3"), 'restart = "never"'),
    ),
    Fault(name="a job fails", reason="job_failed", tables=process(script("exit 4"), 'kind = "job"\nrestart = "never"')),
    Fault(
        name="a process ends again and again",
        reason="restart_budget",
        tables=process(script("exit 5")) + "\n[limits]\nrestarts = 2\n",
    ),
    Fault(
        name="a process does not become ready",
        reason="ready_timeout",
        tables=process(script("exec sleep 3600"), 'ready = { exec = ["false"] }') + '\n[health]\nstart_timeout = "1s"\n',
    ),
    Fault(
        name="a process ends before it was ready, and another waits for it",
        reason="dependency_failed",
        tables=process(script("exit 0"), 'ready = { exec = ["false"] }')
        + '\n[[process]]\nname = "other"\ncommand = ["true"]\nafter = ["app"]\n',
    ),
    Fault(
        name="a process is killed",
        event="process_not_ready",
        reason="ended",
        ends=None,
        provoke=then(kill_the_app),
    ),
    Fault(
        name="a process falls ill",
        event="process_not_ready",
        reason="probe_failed",
        ends=None,
        tables=process(
            script("exec sleep 3600"),
            'ready = { exec = ["test", "!", "-e", "sick"], interval = "100ms", timeout = "30s", failures = 1 }',
        ),
        provoke=then(fall_ill),
        mend=recover,
    ),
    Fault(
        name="a process does not end when it should",
        event="process.killed",
        reason="grace_over",
        ends="stopped",
        tables=process(
            '["sh", "-c", "trap \'\' TERM; echo the token is $API_TOKEN; while :; do sleep 3600; done"]', 'stop_grace = "200ms"'
        ),
        provoke=then(ask_to_end),
    ),
)
