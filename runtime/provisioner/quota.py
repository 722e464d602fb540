"""How many leases of one enclave may be out, and how many of them one parent may hold.

A lease is out from its release until its end, confirmed or not: who holds back a confirm may have an enclave that runs all the same.
Only an enclave that says, with its lease key, that it failed to become live gives its lease back. A renewal takes the place of the
lease before, so a boot has one, however often it renews. So no parent can have more running
enclaves than the quota, and where a record names several, one that boots enclaves without end leaves the others their share.
"""

import sqlite3

from runtime.protocol.errors import Refused
from runtime.provisioner.records import EnclaveRecord


def require_free_lease(
    db: sqlite3.Connection, record: EnclaveRecord, parent: str, *, now: float, renewed: bytes | None = None
) -> None:
    """Raises `Refused` with lease_quota unless `parent` may have another lease of this enclave.

    `renewed` is PCR 17 of the boot that renews: its own leases do not count.

    Leases of parents that the record no longer names do not count: they cannot get more, and must not keep out those that took
    their place.
    """
    rows = db.execute(
        "SELECT parent, count(*) FROM leases WHERE enclave_id = ? AND state NOT IN ('failed', 'renewed') AND expires > ?"
        " AND key_register IS NOT ? GROUP BY parent",
        (record.enclave_id, now, renewed),
    )
    out = {holder: count for holder, count in rows if holder in record.parents or not holder}
    total, own, share = sum(out.values()), out.get(parent, 0), share_of_a_parent(record)
    if total >= record.lease_quota or own >= share:
        raise Refused(
            "lease_quota", f"{total} of {record.lease_quota} leases are out, {own} of them with this parent, whose share is {share}"
        )


def share_of_a_parent(record: EnclaveRecord) -> int:
    """The quota divided by the number of parents, rounded up."""
    return -(-record.lease_quota // max(1, len(record.parents)))
