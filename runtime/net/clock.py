"""The one place that reads the wall clock; everything else takes `now` as an argument."""

import time
from datetime import UTC, datetime


def unix_now() -> float:
    """Seconds since 1970 UTC, by this machine's clock."""
    return time.time()  # noqa: TID251 - this is the place that the ban names


def utc_now() -> datetime:
    """The same moment as an aware datetime."""
    return datetime.fromtimestamp(unix_now(), UTC)
