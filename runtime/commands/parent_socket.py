"""How `status`, `logs` and `drain` speak to a running parent: HTTP over its status socket (runtime/parent/status.py)."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from runtime.commands.output import note
from runtime.net.endpoint import Endpoint, Unix, connect
from runtime.net.http import HttpClient
from runtime.net.serve import CONNECTION_ERRORS
from runtime.parent.config import read_config
from runtime.parent.console import printable
from runtime.parent.status import WAIT_MAX
from runtime.settings import SettingsError

DEFAULT_SOCKET = "/run/enclave/parent.sock"
ANSWER_SECONDS = 10.0
ANSWER_MAX = 8 << 20
"""Bytes of an answer: events hold what a customer process has written, escaped."""


class NoAnswer(Exception):
    """The parent cannot be asked, or does not do what was asked; the message is for a person."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which parent is meant."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("-c", "--config", type=Path, metavar="parent.toml", help="the parent's config, whose listen.status is asked")
    which.add_argument("--socket", metavar="PATH", help=f"the parent's status socket ({DEFAULT_SOCKET})")
    parser.add_argument("--json", action="store_true", help="print JSON")


def guarded(name: str, arguments: argparse.Namespace, action: Callable[["ParentSocket"], Any]) -> int:
    """Runs an asynchronous command with the parent that `arguments` name; gives its exit status, or 1 when the parent cannot be asked."""
    try:
        return int(trio.run(action, ParentSocket(_endpoint(arguments))))
    except NoAnswer as error:
        note(f"enclave {name}: {error}")
        return 1


class ParentSocket:
    """A running parent."""

    def __init__(self, at: Endpoint) -> None:
        self._at = at

    async def get(self, target: str, *, wait: float = 0.0) -> Any:
        """The JSON that the parent answers, which may take `wait` seconds longer than usual. Raises `NoAnswer`."""
        return await self._ask("GET", target, wait)

    async def post(self, target: str) -> None:
        """Has the parent do something. Raises `NoAnswer`."""
        await self._ask("POST", target, 0.0)

    async def events(self, after: int, *, wait: float = 0.0) -> Any:
        """Events with a higher number, if there are some within `wait` seconds: `events`, `next`, `last`, `missed`. Raises `NoAnswer`."""
        seconds = max(0, min(WAIT_MAX, int(wait)))
        return await self.get(f"/events?after={after}&wait={seconds}", wait=seconds)

    async def _ask(self, method: str, target: str, wait: float) -> Any:
        try:
            with trio.fail_after(ANSWER_SECONDS + wait):
                async with await connect(self._at) as stream:
                    answer = await HttpClient(stream, host="parent").request(method, target, max_body=ANSWER_MAX)
            body = json.loads(answer.body) if answer.body else None
        except trio.TooSlowError:
            raise NoAnswer(f"the parent at {self._at} does not answer") from None
        except OSError as error:
            raise NoAnswer(f"no parent answers at {self._at}: {error.strerror or error}") from None
        except CONNECTION_ERRORS as error:
            raise NoAnswer(f"the parent at {self._at} answered badly: {printable(str(error))}") from None
        except ValueError:
            raise NoAnswer(f"the parent at {self._at} answered with what is no JSON") from None
        if answer.status >= 400:
            detail = body.get("detail", "") if isinstance(body, dict) else ""
            raise NoAnswer(printable(str(detail)) or f"the parent answered {answer.status}")
        return body


def _endpoint(arguments: argparse.Namespace) -> Endpoint:
    if arguments.config is None:
        try:
            return Unix((arguments.socket or DEFAULT_SOCKET).removeprefix("unix:"))
        except ValueError as error:
            raise NoAnswer(str(error)) from None
    try:
        status = read_config(arguments.config).listen.status
    except SettingsError as error:
        raise NoAnswer(str(error)) from None
    except OSError as error:
        raise NoAnswer(f"{arguments.config}: {error.strerror or error}") from None
    if status is None:
        raise NoAnswer(f"{arguments.config} has no listen.status, so its parent cannot be asked")
    return status
