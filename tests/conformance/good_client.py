"""A client as it should be: what it gets, and how long it waits, beside whatever else is going on."""

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from statistics import median

from tests.conformance.target import Target

_PATH = "/keep"


@dataclass(slots=True)
class Served:
    """Seconds of each request that was answered, and what went wrong with the others."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """Of those that were answered; infinite when none was."""
        return median(self.seconds) * 1e3 if self.seconds else float("inf")

    @property
    def worst_ms(self) -> float:
        """As `median_ms`."""
        return max(self.seconds) * 1e3 if self.seconds else float("inf")


def ask(target: Target, context: ssl.SSLContext, served: Served) -> None:
    """One request on a connection of its own, handshake included."""
    client = target.client(context)
    begun = time.monotonic()
    try:
        client.request("GET", _PATH)
        response = client.getresponse()
        response.read()
        if response.status == 200:
            served.seconds.append(time.monotonic() - begun)
        else:
            served.failures.append(f"status {response.status}")
    except (OSError, HTTPException) as error:
        served.failures.append(type(error).__name__)
    finally:
        client.close()


def ask_often(target: Target, count: int, *, pause: float = 0.0) -> Served:
    """`count` requests, one after the other."""
    served, context = Served(), target.context()
    for _ in range(count):
        ask(target, context, served)
        time.sleep(pause)
    return served


@contextmanager
def asking(target: Target, *, pause: float = 0.1) -> Iterator[Served]:
    """Requests all through the block, one after the other."""
    served, context, is_over = Served(), target.context(), threading.Event()

    def run() -> None:
        while not is_over.wait(pause):
            ask(target, context, served)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield served
    finally:
        is_over.set()
        thread.join()
