"""PROXY v2 headers: what the parent writes the enclave reads, and nothing else passes."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.protocol.errors import LocalProtocolError, Malformed
from runtime.protocol.proxy_header import (
    HEADER_MAX,
    PREFIX_SIZE,
    ProxyHeader,
    encode_proxy_header,
    parse_proxy_header,
    remaining_size,
)

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
LOCAL = ProxyHeader(source=None, destination=None)
IPV4 = ProxyHeader(source=("192.0.2.1", 56324), destination=("198.51.100.7", 443))
IPV6 = ProxyHeader(source=("2001:db8::1", 1), destination=("2001:db8::2", 65535))
IPV4_BYTES = SIGNATURE + bytes.fromhex("2111 000c c0000201 c6336407 dc04 01bb")


def header(command: int = 0x21, family: int = 0x11, body: bytes = IPV4_BYTES[16:], size: int | None = None) -> bytes:
    return SIGNATURE + bytes((command, family)) + (len(body) if size is None else size).to_bytes(2, "big") + body


def test_an_ipv4_header_has_the_bytes_of_the_specification() -> None:
    assert encode_proxy_header(IPV4) == IPV4_BYTES
    assert parse_proxy_header(IPV4_BYTES) == IPV4


def test_an_ipv6_header_has_the_bytes_of_the_specification() -> None:
    expected = SIGNATURE + bytes.fromhex("2121 0024 20010db8000000000000000000000001 20010db8000000000000000000000002 0001 ffff")
    assert encode_proxy_header(IPV6) == expected
    assert parse_proxy_header(expected) == IPV6


def test_a_health_check_has_no_address() -> None:
    assert encode_proxy_header(LOCAL) == SIGNATURE + bytes.fromhex("2000 0000")
    assert parse_proxy_header(encode_proxy_header(LOCAL)) == LOCAL


def test_addresses_of_a_local_command_are_passed_over() -> None:
    assert parse_proxy_header(header(command=0x20)) == LOCAL
    assert parse_proxy_header(header(command=0x20, family=0x31, body=b"anything")) == LOCAL


def test_an_unknown_family_has_no_address() -> None:
    assert parse_proxy_header(header(family=0x00, body=b"opaque")) == LOCAL


def test_extensions_are_passed_over() -> None:
    extension = bytes.fromhex("03 0004 01020304")
    assert parse_proxy_header(header(body=IPV4_BYTES[16:] + extension)) == IPV4


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (header().replace(b"QUIT", b"QUIZ"), "proxy_signature"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", "proxy_signature"),
        (header(command=0x11), "proxy_command"),
        (header(command=0x22), "proxy_command"),
        (header(command=0x31), "proxy_command"),
        (header(family=0x12), "proxy_family"),
        (header(family=0x22), "proxy_family"),
        (header(family=0x31, body=bytes(216)), "proxy_family"),
        (header(family=0x10), "proxy_family"),
        (header(body=IPV4_BYTES[16:-1]), "truncated"),
        (header(family=0x21), "truncated"),
        (header(size=13), "truncated"),
        (header() + b"\x16", "trailing_bytes"),
        (header(body=bytes(HEADER_MAX - PREFIX_SIZE + 1)), "too_large"),
        (header(command=0x20, size=0xFFFF), "too_large"),
    ],
)
def test_what_is_no_header_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(Malformed) as refused:
        parse_proxy_header(data)
    assert refused.value.reason == reason


def test_a_header_of_the_largest_size_is_read() -> None:
    body = IPV4_BYTES[16:] + bytes(HEADER_MAX - PREFIX_SIZE - 12)
    assert parse_proxy_header(header(body=body)) == IPV4


@pytest.mark.parametrize("whole", [IPV4_BYTES, encode_proxy_header(IPV6), encode_proxy_header(LOCAL)])
def test_a_header_cut_anywhere_is_refused(whole: bytes) -> None:
    for size in range(len(whole)):
        with pytest.raises(Malformed):
            parse_proxy_header(whole[:size])


def test_the_prefix_tells_how_much_to_read() -> None:
    assert remaining_size(IPV4_BYTES[:PREFIX_SIZE]) == 12
    assert remaining_size(IPV4_BYTES) == 12
    with pytest.raises(Malformed, match="bytes expected"):
        remaining_size(IPV4_BYTES[: PREFIX_SIZE - 1])
    with pytest.raises(Malformed) as refused:
        remaining_size(header(size=HEADER_MAX)[:PREFIX_SIZE])
    assert refused.value.reason == "too_large"


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        (("192.0.2.1", 1), ("2001:db8::2", 1)),
        (("localhost", 1), ("192.0.2.1", 1)),
        (("192.0.2.1", 65536), ("192.0.2.1", 1)),
        (("192.0.2.1", -1), ("192.0.2.1", 1)),
    ],
)
def test_addresses_that_no_header_can_carry_are_our_bug(source: tuple[str, int], destination: tuple[str, int]) -> None:
    with pytest.raises(LocalProtocolError):
        encode_proxy_header(ProxyHeader(source=source, destination=destination))


PORTS = st.integers(min_value=0, max_value=65535)


def addresses(version: int) -> st.SearchStrategy[tuple[str, int]]:
    hosts = st.integers(0, 2**32 - 1).map(IPv4Address) if version == 4 else st.integers(0, 2**128 - 1).map(IPv6Address)
    return st.tuples(hosts.map(str), PORTS)


@given(st.one_of(*(st.tuples(addresses(version), addresses(version)) for version in (4, 6))))
def test_every_pair_of_addresses_comes_back(pair: tuple[tuple[str, int], tuple[str, int]]) -> None:
    written = ProxyHeader(source=pair[0], destination=pair[1])
    assert parse_proxy_header(encode_proxy_header(written)) == written


@given(st.one_of(st.binary(max_size=64), st.binary(max_size=64).map(SIGNATURE.__add__)))
def test_any_bytes_give_a_header_or_one_error(data: bytes) -> None:
    try:
        parsed = parse_proxy_header(data)
    except Malformed:
        return
    assert data.startswith(SIGNATURE)
    assert (parsed.source is None) == (parsed.destination is None)
