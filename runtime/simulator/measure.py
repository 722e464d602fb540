"""Measures a whole simulated enclave: its start, and what it needs while nothing happens. `scripts/measure` runs it.

Everything is looked at from outside, with the programs that an operator starts: times are those at which the parent has shown an event,
counted from before the program is executed that becomes PID 1, so they hold the interpreter, all imports and the parent's own delay.
"""

import argparse
import json
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import trio

from runtime.net.clock import utc_now
from runtime.net.endpoint import Tcp
from runtime.simulator.footprint import Footprint, alone, footprints, grown
from runtime.simulator.import_times import Loaded, import_times
from runtime.simulator.layout import Layout
from runtime.simulator.programs import Program, running
from runtime.simulator.workspace import bake, prepare_parent, prepare_provisioner, register

FIRST_RECORD_SECONDS = 0.3
READY_SECONDS = 1.0
PSS_MIB = 120.0
WAKE_UPS = 2.0
"""A second, of each process."""

SETTLING = 15.0
"""Seconds after the start that are not counted: threads of the boot end when they have been idle for ten."""
_PATIENCE = 120.0
_TOP = 8

_CONFIG = """
version = 1

[enclave]
id = "measured"

[[process]]
name = "app"
command = ["sleep", "infinity"]
user = "1000:1000"

[ingress]
mode = "http"
upstream = "tcp:127.0.0.1:8080"
workers = 2

[attestation]
listen = "tcp:127.0.0.1:9997"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Seconds from the start of the program: to the first record of the journal, to ready, and of the latter for provisioning."""

    first_record: float
    ready: float
    provision: float

    @property
    def without_provisioning(self) -> float:
        return self.ready - self.provision


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """One process while nothing happens: KiB, wake-ups and milliseconds of CPU a second."""

    name: str
    pss: int | None
    wake_ups: float
    cpu: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; the exit status says whether every budget was kept."""
    parser = argparse.ArgumentParser(prog="scripts/measure", description="What the runtime costs on this machine.")
    parser.add_argument("--runs", type=int, default=5, help="starts (default 5)")
    parser.add_argument("--seconds", type=float, default=60, help="seconds idle (default 60)")
    parser.add_argument("--settling", type=float, default=SETTLING, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    found = trio.run(_measure, options.runs, options.seconds, options.settling)
    sys.stdout.write((json.dumps(found) if options.json else "\n".join(_table(found))) + "\n")
    return 0 if all(budget["kept"] for budget in found["budgets"]) else 1


def _note(text: str) -> None:
    sys.stderr.write(text + "\n")


async def _measure(runs: int, seconds: float, settling: float) -> dict[str, Any]:
    starts: list[Start] = []
    with TemporaryDirectory(prefix="measure-") as folder:
        layout = Layout(Path(folder))
        layout.base.chmod(0o755)  # without namespaces of its own the enclave's workers come here under their own users
        for run in range(1, runs):
            _note(f"start {run} of {runs}")
            async with _system(layout) as (start, _):
                starts.append(start)
        _note(f"start {runs} of {runs}, then {settling + seconds:g} s of idleness")
        async with _system(layout) as (start, pid):
            starts.append(start)
            idle, alone_kib, only = await _idle(layout, pid, seconds, settling)
    before, all_ = [await import_times(whole_boot=whole_boot) for whole_boot in (False, True)]
    return _found(starts, idle, alone_kib, only, before, all_)


async def _idle(layout: Layout, pid: int, seconds: float, settling: float) -> tuple[list[Idle], int, list[Idle]]:
    """(the enclave's processes, KiB that these need alone, those of one command under the first process)."""
    command = ["-m", "runtime.cli", "simulate", "--only-process", "--", "sh", "-c", "echo up; exec sleep infinity"]
    async with running("only-process", command, layout.logs) as launcher:
        await _first_line(launcher)
        await trio.sleep(settling)
        before = _own(pid), _own(launcher.pid)
        await trio.sleep(seconds)
        after = _own(pid), _own(launcher.pid)
    enclave, only = (_compared(*each, seconds) for each in zip(before, after, strict=True))
    named = [replace(each, name="launcher" if index == 0 else "PID 1") for index, each in enumerate(only)]
    return enclave, alone(after[0]), named


def _own(root: int) -> list[Footprint]:
    """Without the customer's process."""
    return [process for process in footprints(root) if process.name != "sleep"]


def _compared(before: list[Footprint], after: list[Footprint], seconds: float) -> list[Idle]:
    earlier = {process.pid: process for process in before}
    return [
        Idle(
            name=process.name,
            pss=process.pss,
            wake_ups=grown(earlier[process.pid].wake_ups, process.wake_ups) / seconds,
            cpu=grown(earlier[process.pid].cpu_ns, process.cpu_ns) / 1e6 / seconds,
        )
        for process in after
        if process.pid in earlier
    ]


@asynccontextmanager
async def _system(layout: Layout) -> AsyncGenerator[tuple[Start, int]]:
    """A system that is ready: how long that took, and the process id of its PID 1."""
    layout.make()
    source = layout.base / "source.toml"
    source.write_text(_CONFIG)
    prepare_provisioner(layout, now=utc_now())
    async with AsyncExitStack() as stack:
        stack.callback(layout.clear)
        command = ["-m", "runtime.cli", "provisioner", str(layout.provisioner / "provisioner.toml"), "--json"]
        provisioner = await stack.enter_async_context(running("provisioner", command, layout.logs))
        url = f"https://localhost:{Tcp.parse(json.loads(await _first_line(provisioner))['at']).port}"
        simulated = bake(layout, source, provisioner=url, names=())
        config = prepare_parent(layout, simulated, provisioner=url, listen=Tcp("127.0.0.1", 0), now=utc_now())
        register(layout, simulated)
        command = ["-m", "runtime.cli", "parent", str(config), "--json"]
        parent = await stack.enter_async_context(running("parent", command, layout.logs, json_on_stderr=True))
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        seen = _Seen()
        await nursery.start(seen.follow, parent)
        layout.open_parent_ports()
        registers = [f"{index}={value.hex()}" for index, value in simulated.registers.items()]
        command = ["-m", "runtime.simulator.module", str(layout.base), simulated.module_id, *registers]
        await _first_line(await stack.enter_async_context(running("module", command, layout.logs)))
        seen.began = trio.current_time()
        enclave = running("enclave", ["-m", "runtime.simulator.machine", str(layout.base)], layout.logs)
        program = await stack.enter_async_context(enclave)
        with trio.move_on_after(_PATIENCE):
            await seen.is_over.wait()
        if not seen.ready:
            raise SystemExit(f"the enclave did not become ready:\n{program.tail()}")
        start = Start(first_record=seen.first_record, ready=seen.ready, provision=seen.provision)
        yield start, int(layout.pid.read_text())


@dataclass(slots=True)
class _Seen:
    """What the parent has shown, in seconds after `began`."""

    began: float = 0.0
    first_record: float = 0.0
    provision: float = 0.0
    ready: float = 0.0
    is_over: trio.Event = field(default_factory=trio.Event)

    async def follow(self, parent: Program, *, task_status: trio.TaskStatus[None]) -> None:
        """Until the parent ends."""
        async for line in parent.lines():
            event = json.loads(line)
            match event["kind"], event["event"]:
                case "parent", "ready":
                    task_status.started()
                case "journal", name:
                    self.first_record = self.first_record or trio.current_time() - self.began
                    if name == "stage.ended" and event["fields.stage"] == "provision":
                        self.provision = event["fields.took_ms"] / 1000
                case "state", "ready":
                    self.ready = self.ready or trio.current_time() - self.began
                    self.is_over.set()
                case "state", "failed" | "stopped":
                    self.is_over.set()


async def _first_line(program: Program) -> str:
    async with aclosing(program.lines()) as lines:
        async for line in lines:
            return line
    raise SystemExit(f"the {program.name} ended:\n{program.tail()}")


def _found(
    starts: list[Start], idle: list[Idle], alone_kib: int, only: list[Idle], before: list[Loaded], all_: list[Loaded]
) -> dict[str, Any]:
    times = {
        "first_record": [start.first_record for start in starts],
        "ready_without_provisioning": [start.without_provisioning for start in starts],
        "ready": [start.ready for start in starts],
    }
    seconds = {name: {"median": round(median(each), 3), "worst": round(max(each), 3)} for name, each in times.items()}
    pss = sum(process.pss or 0 for process in idle) / 1024
    most_awake = max(process.wake_ups for process in idle)
    return {
        "starts": len(starts),
        "seconds": seconds,
        "idle": [_shown(process) for process in idle],
        "pss_mib": round(pss, 1),
        "alone_mib": round(alone_kib / 1024, 1),
        "only_process": [_shown(process) for process in only],
        "loaded_before_the_first_record": [asdict(each) for each in before],
        "loaded_in_all": [asdict(each) for each in all_],
        "budgets": [
            _budget("first record, s", seconds["first_record"]["median"], FIRST_RECORD_SECONDS),
            _budget("ready without provisioning, s", seconds["ready_without_provisioning"]["median"], READY_SECONDS),
            _budget("PSS of the idle runtime, MiB", round(pss, 1), PSS_MIB),
            _budget("wake-ups a second of one process", round(most_awake, 2), WAKE_UPS),
        ],
    }


def _budget(what: str, value: float, most: float) -> dict[str, Any]:
    return {"what": what, "value": value, "most": most, "kept": value <= most}


def _shown(process: Idle) -> dict[str, Any]:
    return {
        "name": process.name,
        "pss_mib": None if process.pss is None else round(process.pss / 1024, 1),
        "wake_ups_per_second": round(process.wake_ups, 2),
        "cpu_ms_per_second": round(process.cpu, 2),
    }


def _table(found: dict[str, Any]) -> list[str]:
    lines = [f"From the start of the program ({found['starts']} starts)      median     worst"]
    for name, seconds in found["seconds"].items():
        lines.append(f"  {name.replace('_', ' '):<40} {seconds['median']:>8.3f} s {seconds['worst']:>8.3f} s")
    for title, processes in (("Idle enclave", found["idle"]), ("Idle, one command under the first process", found["only_process"])):
        lines.append(f"\n{title:<42} PSS, MiB  wake-ups/s  CPU, ms/s")
        for each in processes:
            pss = "?" if each["pss_mib"] is None else f"{each['pss_mib']:.1f}"
            lines.append(f"  {each['name']:<40} {pss:>8} {each['wake_ups_per_second']:>11.2f} {each['cpu_ms_per_second']:>10.2f}")
        total = sum(each["pss_mib"] or 0 for each in processes)
        lines.append(f"  {'together':<40} {total:>8.1f}")
        if processes is found["idle"]:
            lines.append(f"  {'if nobody else had files in common':<40} {found['alone_mib']:>8.1f}")
    for title, loaded in (
        ("Loaded before the first record", found["loaded_before_the_first_record"]),
        ("Loaded by PID 1 in all", found["loaded_in_all"]),
    ):
        lines.append(f"\n{title:<42}       ms     modules")
        lines += [f"  {each['package']:<40} {each['milliseconds']:>8.1f} {each['modules']:>11}" for each in loaded[:_TOP]]
        total_ms, count = sum(each["milliseconds"] for each in loaded), sum(each["modules"] for each in loaded)
        lines.append(f"  {'together':<40} {total_ms:>8.1f} {count:>11}")
    lines.append("\nBudgets")
    for each in found["budgets"]:
        lines.append(f"  {each['what']:<40} {each['value']:>8} of {each['most']:>5g}  {'kept' if each['kept'] else 'MISSED'}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
