"""Token buckets: what a key may take in the long run and at once, and what counts as one client."""

import pytest

from runtime.net.buckets import TokenBuckets, client_network, plain_address


def test_a_key_takes_its_burst_at_once_and_then_its_rate() -> None:
    buckets = TokenBuckets(rate=0.5, burst=3)
    assert [buckets.take("a", now=0.0) for _ in range(4)] == [0, 0, 0, 2]
    assert buckets.take("b", now=0.0) == 0
    assert buckets.take("a", now=1.9) == 1
    assert buckets.take("a", now=2.0) == 0
    assert buckets.take("a", now=2.0) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"),
        ("2001:DB8:1:2::1", "2001:db8:0001:0002::9"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::FFFF:c000:0207", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::2%eth1"),
    ],
)
def test_what_one_host_can_call_itself_is_one_client(one: str, other: str) -> None:
    assert client_network(one) == client_network(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.7", "192.0.2.8"),
        ("2001:db8:1:2::1", "2001:db8:1:3::1"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.8"),
        ("unix", "another"),
    ],
)
def test_different_hosts_are_different_clients(one: str, other: str) -> None:
    assert client_network(one) != client_network(other)


@pytest.mark.parametrize(
    ("address", "plain"),
    [("::ffff:192.0.2.7", "192.0.2.7"), ("192.0.2.7", "192.0.2.7"), ("2001:DB8:0::7", "2001:db8::7"), ("", ""), ("name", "name")],
)
def test_an_address_is_written_in_one_way(address: str, plain: str) -> None:
    assert plain_address(address) == plain
