"""The request log: one line of JSON for each request, on its way to the parent as the output of a process is.

Runs in the ingress worker, where a request must cost next to nothing: what all requests of one head share is encoded once, lines are
gathered and handed to PID 1 together, which passes them on unread. Every line has the number of its request, and a line that could not
be kept leaves a gap and is counted in the next.
"""

import json
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring_ascii

import trio

from runtime.net.clock import unix_now
from runtime.protocol.worker_link import REQUESTS_MAX

GATHER_SECONDS = 0.1
"""How long a line waits for others."""
LINE_MAX = 4096
"""Bytes of one line; a longer one is not kept. No field of it is anywhere near."""

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def shared_members(**fields: str | int | None) -> str:
    """The members of a line that many requests have in common, each with a comma behind it; None leaves one out."""
    return "".join(
        f'"{name}":{encode_basestring_ascii(value) if isinstance(value, str) else value},'
        for name, value in fields.items()
        if value is not None
    )


class RequestLog:
    """The lines of one worker. `send` takes whole lines, at most `REQUESTS_MAX` bytes of them.

    `sample` keeps one request in so many, and every one that was refused or went wrong. `now` is in seconds since 1970.
    """

    def __init__(self, send: Callable[[bytes], None], *, sample: int = 1, now: Callable[[], float] = unix_now) -> None:
        self._send = send
        self._sample = sample
        self._now = now
        self._lines: list[str] = []
        self._size = 0
        self._requests = 0
        self._dropped = 0
        self._something = trio.Event()

    def add(self, fields: Mapping[str, object]) -> None:
        """One line, of text, numbers and None; seconds become whole microseconds. Never waits and never fails."""
        line: dict[str, object] = {}
        for name, value in fields.items():
            if isinstance(value, float):
                line[f"{name}_us"] = round(value * 1e6)
            elif value is not None:
                line[name] = value
        self._add(_encode(line)[1:-1])

    def add_request(
        self,
        shared: str,
        *,
        request_id: bytes,
        status: int | None,
        code: str,
        request_bytes: int,
        answer_bytes: int,
        seconds: float,
        first_byte: float | None = None,
        connect: float | None = None,
    ) -> None:
        """One request: members from `shared_members`, and its own; `code` is one of ours, `request_id` needs no escape. Cheaper than `add`.

        `first_byte` are the seconds until the process's answer began, `connect` those that a new connection to it took.
        """
        took = round(seconds * 1e6)
        timing = ""
        if first_byte is not None:
            timing = f'"first_byte_us":{took if first_byte == seconds else round(first_byte * 1e6)},'
        if connect is not None:
            timing += f'"connect_us":{round(connect * 1e6)},'
        answered = "" if status is None else f'"status":{status},'
        self._add(
            f'"time_ms":{int(self._now() * 1000)},"id":"{request_id.decode()}",{shared}{answered}"code":"{code}",'
            f'"request_bytes":{request_bytes},"answer_bytes":{answer_bytes},{timing}"seconds_us":{took}',
            is_wanted=code != "ok" or status is None or status >= 400,
        )

    def _add(self, members: str, *, is_wanted: bool = True) -> None:
        self._requests += 1
        if not is_wanted and self._requests % self._sample:
            return
        dropped = f',"dropped":{self._dropped}' if self._dropped else ""
        line = f'{{"request":{self._requests}{dropped}{"," if members else ""}{members}}}\n'
        size = self._size + len(line)
        if len(line) > LINE_MAX or size > REQUESTS_MAX:
            self._dropped += 1
            return
        self._dropped = 0
        if not self._lines:
            self._something.set()
        self._lines.append(line)
        self._size = size

    def flush(self) -> None:
        """Hands over what there is."""
        if self._lines:
            self._send("".join(self._lines).encode("ascii"))
            self._lines.clear()
            self._size = 0
        self._something = trio.Event()

    async def run(self) -> None:
        """Hands over lines, those of `GATHER_SECONDS` together, for ever; an idle worker sleeps."""
        while True:
            await self._something.wait()
            await trio.sleep(GATHER_SECONDS)
            self.flush()
