"""How long the audit log keeps its rows: for a time, and of rows that strangers can cause, a number.

Rows that say what was released, what an operator changed and what raised an alarm go by age alone: no flood of refusals pushes them
out. Each call deletes a few rows, so that no request waits for a large one.
"""

from runtime.provisioner.config import AuditConfig
from runtime.provisioner.store import Store

ROWS_BETWEEN = 64
STEP = 4 * ROWS_BETWEEN
"""Rows that one call deletes at the most: it is made once in `ROWS_BETWEEN` new ones, and so catches up."""


def prune(store: Store, config: AuditConfig, *, now: float) -> int:
    """Deletes up to `STEP` rows that are past their time, then up to `STEP` that are too many, the oldest first; gives how many."""
    with store.transaction() as db:
        # Rows are nearly in the order of time: only the oldest numbers are looked at, never the whole log.
        old = db.execute(
            "DELETE FROM audit WHERE time < ? AND sequence IN (SELECT sequence FROM audit ORDER BY sequence LIMIT ?)",
            (now - config.keep, STEP),
        ).rowcount
        common: int = db.execute("SELECT count(*) FROM audit WHERE is_common = 1").fetchone()[0]
        surplus = db.execute(
            "DELETE FROM audit WHERE sequence IN (SELECT sequence FROM audit WHERE is_common = 1 ORDER BY sequence LIMIT ?)",
            (min(STEP, max(0, common - config.entries)),),
        ).rowcount
        return old + surplus
