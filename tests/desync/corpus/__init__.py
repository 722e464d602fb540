"""The project's own corpus of requests, in groups. What else is of interest is added here as one line."""

from tests.desync.cases import Case
from tests.desync.corpus import chunks, codings, fields, hops, hosts, lengths, lines, sequences, sizes

GROUPS: dict[str, list[Case]] = {
    "lengths": lengths.CASES,
    "codings": codings.CASES,
    "chunks": chunks.CASES,
    "lines": lines.CASES,
    "fields": fields.CASES,
    "hosts": hosts.CASES,
    "hops": hops.CASES,
    "sizes": sizes.CASES,
    "sequences": sequences.CASES,
}
