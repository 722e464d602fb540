"""The egress log: one line of JSON for each decision, and counts for each rule.

Runs in the egress worker. Lines go the way of the request log (request_log.py): gathered, bounded, numbered, passed on unread. Counts are
what was added since they were last sent, so that a worker that is started again takes nothing from the sums that PID 1 keeps.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice

import trio

from runtime.enclave.traffic.egress_road import Flow
from runtime.enclave.traffic.request_log import RequestLog
from runtime.enclave.traffic.resolver import Lookup
from runtime.protocol.dns import AAAA, A
from runtime.protocol.worker_link import COUNTS_MAX

COUNTS_SECONDS = 1.0
"""How long counts wait for others."""
_TEXT_MAX = 300
_TYPES = {A: "A", AAAA: "AAAA"}


class EgressLog:
    """`send` takes whole lines, `count` what is to be added to the sums, at most `COUNTS_MAX` at once."""

    def __init__(self, send: Callable[[bytes], None], count: Callable[[Mapping[str, int]], None]) -> None:
        self._lines = RequestLog(send)
        self._lookups = RequestLog(send)  # of their own: a flood of questions costs a process nothing, and must hide no connection
        self._count = count
        self._counts: Counter[str] = Counter()
        self._something = trio.Event()

    def flow(self, flow: Flow) -> None:
        """One connection."""
        self._lines.add(
            {
                "way": flow.way,
                "host": flow.host[:_TEXT_MAX],
                "port": flow.port,
                "rule": flow.rule,
                "reason": flow.reason,
                "sent": flow.sent,
                "received": flow.received,
                "seconds": flow.seconds,
                "ending": flow.ending,
            }
        )
        if flow.ending is None:
            self._add(f'egress_refused{{reason="{flow.reason}"}}', 1)
        else:
            self._add(f'egress_connections{{rule="{flow.rule}"}}', 1)
            self._add(f'egress_sent_bytes{{rule="{flow.rule}"}}', flow.sent)
            self._add(f'egress_received_bytes{{rule="{flow.rule}"}}', flow.received)

    def lookup(self, lookup: Lookup) -> None:
        """One question to the resolver."""
        self._lookups.add(
            {
                "way": "lookup",
                "host": lookup.name[:_TEXT_MAX],
                "type": _TYPES.get(lookup.type, str(lookup.type)),
                "rule": lookup.rule,
                "reason": lookup.reason,
            }
        )
        self._add(f'egress_lookups{{reason="{lookup.reason}"}}', 1)

    def flush(self) -> None:
        """Hands over what there is."""
        self._lines.flush()
        self._lookups.flush()
        if self._counts:
            counts = iter(self._counts.items())
            while some := dict(islice(counts, COUNTS_MAX)):
                self._count(some)
            self._counts.clear()
        self._something = trio.Event()

    async def run(self) -> None:
        """Hands over lines and counts, for ever; an idle worker sleeps."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._lines.run)
            nursery.start_soon(self._lookups.run)
            while True:
                await self._something.wait()
                await trio.sleep(COUNTS_SECONDS)
                self.flush()

    def _add(self, name: str, number: int) -> None:
        self._counts[name] += number
        self._something.set()
