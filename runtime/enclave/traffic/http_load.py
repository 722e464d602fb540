"""What is under way at the customer process, and who asked for how much: the counts that all connections of a worker share."""

from runtime.net.buckets import TokenBuckets, client_network


class Load:
    """`in_flight` requests wait for the customer process, at most `in_flight_max`; tunnels are not counted.

    Of one address `rate` requests a second are let in, and `burst` at once; any number where `rate` is None.
    """

    __slots__ = ("_buckets", "in_flight", "in_flight_max")

    def __init__(self, *, in_flight_max: int, rate: float | None, burst: int) -> None:
        self.in_flight = 0
        self.in_flight_max = in_flight_max
        self._buckets = None if rate is None else TokenBuckets(rate=rate, burst=burst)

    def network_of(self, address: str | None) -> str | None:
        """What this address is counted as; None when it is not."""
        return None if address is None or self._buckets is None else client_network(address)

    def wait_of(self, network: str, now: float) -> int:
        """0 when a request from there may go on now; else the whole seconds until it may."""
        return 0 if self._buckets is None else self._buckets.take(network, now=now)
