"""The end of an ingress worker's service: whoever waits for a client's next word waits no longer, and what is under way goes on."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Draining:
    """Whether the worker drains. Waits for a client that may never speak are made inside `waiting`."""

    def __init__(self) -> None:
        self._waiting: dict[trio.CancelScope, float] = {}
        self.asked = trio.Event()

    @property
    def is_asked(self) -> bool:
        """Whether the worker drains."""
        return self.asked.is_set()

    def ask(self) -> None:
        """From now on nothing new begins: every wait ends within its grace."""
        self.asked.set()
        now = trio.current_time()
        for scope, grace in self._waiting.items():
            scope.deadline = min(scope.deadline, now + grace)

    @contextmanager
    def waiting(self, seconds: float, *, grace: float) -> Iterator[trio.CancelScope]:
        """A scope of `seconds`, of which at most `grace` are left once the worker drains."""
        with trio.move_on_after(min(seconds, grace) if self.is_asked else seconds) as scope:
            self._waiting[scope] = grace
            try:
                yield scope
            finally:
                del self._waiting[scope]
