"""Token buckets, one for each key of a bounded number of keys: how every rate limit here counts. Time is an argument."""

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from math import ceil


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled: float


class TokenBuckets:
    """Each key may `take` `rate` times a second in the long run and `burst` times at once.

    At most `most_keys` are remembered; the one that was used longest ago is forgotten first, which gives it a full bucket again:
    whoever can use that many keys is not held back by any of them.
    """

    def __init__(self, *, rate: float, burst: int, most_keys: int = 10_000) -> None:
        self._rate = rate
        self._burst = burst
        self._most_keys = most_keys
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, key: str, *, now: float) -> int:
        """0 when `key` may go on; else the whole seconds after which it may try again. `now` is in seconds and never goes back."""
        bucket = self._buckets.pop(key, None) or _Bucket(self._burst, now)
        bucket.tokens = min(self._burst, bucket.tokens + self._rate * max(0.0, now - bucket.filled))
        bucket.filled = now
        self._buckets[key] = bucket
        if len(self._buckets) > self._most_keys:
            self._buckets.popitem(last=False)
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return 0
        return max(1, ceil((1 - bucket.tokens) / self._rate))


def client_network(address: str) -> str:
    """The key of a client by its address: one IPv4 address, or one /64 of IPv6, any address of which a single host can take."""
    found = _parse(address)
    return str(IPv6Address(int(found) >> 64 << 64)) if isinstance(found, IPv6Address) else str(found or address)


def plain_address(address: str) -> str:
    """An address in its usual spelling: IPv4 as such, where a socket of both families calls it `::ffff:192.0.2.7`."""
    return str(_parse(address) or address)


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(address)
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found
