"""Which addresses the parent connects the enclave to."""

import socket
from ipaddress import ip_address, ip_network

import pytest

from runtime.parent.addresses import is_own, is_permitted
from runtime.parent.config import Egress

PRIVATE = ("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "fc00::1", "::ffff:10.0.0.1", "2002:0a00:1::")
FORBIDDEN = (
    *("169.254.169.254", "169.254.169.253", "169.254.0.1", "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3"),
    *("192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
    *("::1", "::", "fe80::1", "fec0::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "100::1", "5f00::1"),
    *("::ffff:169.254.169.254", "::ffff:127.0.0.1", "::ffff:0:169.254.169.254", "::169.254.169.254", "::127.0.0.1", "::8.8.8.8"),
    *("64:ff9b::169.254.169.254", "64:ff9b::127.0.0.1", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::1", "2002:7f00:1::"),
    "2001:0:4136:e378:8000:63bf:5601:5601",
)
PERMITTED = (
    *("8.8.8.8", "1.1.1.1", "99.255.255.255", "2606:4700:4700::1111"),
    *("::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"),
)


@pytest.mark.parametrize("address", [*FORBIDDEN, *PRIVATE])
def test_only_the_public_internet_may_be_reached_by_default(address: str) -> None:
    assert not is_permitted(ip_address(address), Egress())


@pytest.mark.parametrize("address", PERMITTED)
def test_the_public_internet_may_be_reached(address: str) -> None:
    assert is_permitted(ip_address(address), Egress())


@pytest.mark.parametrize("address", FORBIDDEN)
def test_allowing_private_addresses_allows_nothing_else(address: str) -> None:
    assert not is_permitted(ip_address(address), Egress(allow_private=True))


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_may_be_allowed(address: str) -> None:
    assert is_permitted(ip_address(address), Egress(allow_private=True))


def test_loopback_may_be_allowed_for_simulation_and_opens_nothing_else() -> None:
    egress = Egress(allow_loopback=True)
    for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert is_permitted(ip_address(address), egress)
    for address in ("169.254.169.254", "10.0.0.1", "0.0.0.0"):
        assert not is_permitted(ip_address(address), egress)


def test_a_network_of_the_config_may_be_reached_and_its_neighbours_not() -> None:
    egress = Egress(allow=(ip_network("10.1.0.0/16"), ip_network("fd00:1::/32")))
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00:1::5"):
        assert is_permitted(ip_address(address), egress)
    for address in ("10.2.0.1", "fd00:2::1", "127.0.0.1"):
        assert not is_permitted(ip_address(address), egress)


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "127.0.0.1", "8.8.8.8", "64:ff9b::10.1.2.3", "2606:4700::1"])
def test_what_the_config_denies_is_denied_whatever_else_allows_it(address: str) -> None:
    networks = tuple(map(ip_network, ("10.1.0.0/16", "127.0.0.0/8", "8.8.8.8/32", "2606:4700::/32")))
    for allow in (networks, (), (ip_network("::/0"),)):
        egress = Egress(allow=allow, deny=networks, allow_private=True, allow_loopback=True, allow_named=True)
        assert not is_permitted(ip_address(address), egress, is_named=True)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_may_be_allowed_to_an_enclave_that_names_them(address: str) -> None:
    egress = Egress(allow_named=True)
    assert is_permitted(ip_address(address), egress, is_named=True)
    assert not is_permitted(ip_address(address), egress), "a name that resolves there is no name of theirs"
    assert not is_permitted(ip_address(address), Egress(), is_named=True)


@pytest.mark.parametrize("address", FORBIDDEN)
def test_naming_an_address_opens_nothing_but_private_ones(address: str) -> None:
    assert not is_permitted(ip_address(address), Egress(allow_named=True), is_named=True)


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fd00:ec2::254", "169.254.170.2", "169.254.170.23", "fd00:ec2::23", "::ffff:169.254.169.254"]
)
def test_the_metadata_service_must_be_named_by_itself(address: str) -> None:
    wide = Egress(allow=(ip_network("0.0.0.0/0"), ip_network("::/0")), allow_private=True, allow_loopback=True)
    assert not is_permitted(ip_address(address), wide)
    named = Egress(allow=(ip_network(address.removeprefix("::ffff:")),))
    assert is_permitted(ip_address(address), named)


def test_a_machine_knows_its_own_addresses() -> None:
    assert is_own(ip_address("127.0.0.1"))
    assert not is_own(ip_address("192.0.2.1"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("127.0.0.1", 9))
        assert is_own(ip_address(probe.getsockname()[0]))


def test_a_private_address_of_this_machine_stays_forbidden_when_others_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ip_address("10.9.9.9")
    monkeypatch.setattr("runtime.parent.addresses.is_own", lambda address: address == own)
    assert is_permitted(ip_address("10.9.9.8"), Egress(allow_private=True))
    assert not is_permitted(own, Egress(allow_private=True))
