"""`enclave drain`: has the enclave finish what is in flight and stop, and shows how it does."""

import argparse
import json
from functools import partial
from math import ceil
from typing import Any

import trio

from runtime.commands.output import note, write
from runtime.commands.parent_socket import NoAnswer, ParentSocket, add_options, guarded
from runtime.parent.console import legible
from runtime.settings_rules import parse_duration

DEADLINE = "25s"
LAST_WORDS = 3.0
"""Seconds beyond the deadline for the enclave's last report to arrive."""

_SHOWN = {"state", "exit"}
_STEPS = {"process_stopping", "boot.failed"}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `drain`. Exit status: 0 the enclave reported in time that it has stopped, 1 it did not, or there is none."""
    parser = subparsers.add_parser(
        "drain",
        help="let the enclave of a running parent finish and stop",
        description="Nothing new is accepted, what is in flight is finished, the processes end, all by the deadline. The parent runs on.",
    )
    add_options(parser)
    parser.add_argument("--deadline", type=_seconds, default=DEADLINE, metavar="25s", help=f"in which to finish ({DEADLINE})")
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> int:
    return guarded("drain", arguments, partial(_drain, deadline=arguments.deadline, as_json=arguments.json))


async def _drain(parent: ParentSocket, *, deadline: float, as_json: bool) -> int:
    before = await parent.get("/status")
    began = trio.current_time()
    await parent.post(f"/drain?deadline_ms={ceil(deadline * 1000)}")
    end = None
    with trio.move_on_after(deadline + LAST_WORDS):
        end = await _follow(parent, before["event"], began, as_json=as_json)
    took = trio.current_time() - began
    if end is None:
        note(f"enclave drain: the enclave has not said within {took:.1f} s that it has stopped")
    elif as_json:
        write(json.dumps({"state": end, "seconds": round(took, 3)}))
    else:
        write(f"{end} after {took:.1f} s")
    return 0 if end == "stopped" else 1


async def _follow(parent: ParentSocket, after: int, began: float, *, as_json: bool) -> str | None:
    """Shows what happens until the enclave's last word, and gives it; None when another enclave came in its place."""
    while True:
        answer = await parent.events(after, wait=10)
        after = answer["next"]
        for record in answer["events"]:
            if record["kind"] == "parent" and record["event"] == "enclave.booted":
                raise NoAnswer("the enclave has ended without a word, and another has booted")
            if record["kind"] in _SHOWN or record["event"] in _STEPS:
                _progress(record, trio.current_time() - began, as_json=as_json)
            if record["kind"] == "state" and record["event"] in ("stopped", "failed"):
                return str(record["event"])


def _progress(record: dict[str, Any], seconds: float, *, as_json: bool) -> None:
    if as_json:
        note(json.dumps(record))
    else:
        note(f"{seconds:6.1f} s  {legible({name: value for name, value in record.items() if name not in _DULL})}")


_DULL = {"time", "level", "sequence", "enclave_unix_ms"}


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
