"""The gate for TLS: the table of checks however the bytes arrive, and the hellos that real clients send."""

import ssl

import pytest

from runtime.enclave.traffic.egress_policy import TlsDemand
from runtime.enclave.traffic.sni_gate import judge_hello
from runtime.protocol.client_hello import HELLO_FAULTS, RECEIVED_MAX, ClientHello, ClientHelloReader
from runtime.protocol.errors import Malformed
from tests.egress.hellos import hello, message, real, records, sni
from tests.egress.sni_checks import CHECKS, Check

WANTED = "api.example.com"
each_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.what.replace(" ", "-"))


def outcome(check: Check, pieces: list[bytes]) -> str:
    reader = ClientHelloReader()
    try:
        for index, piece in enumerate(pieces):
            found = reader.receive_data(piece)
            if found is not None:
                assert reader.received == b"".join(pieces[: index + 1]), "what was read is passed on as it came"
                return judge_hello(found, TlsDemand(name=WANTED, exceptions=check.exceptions))
        reader.finish()
    except Malformed as fault:
        return fault.reason
    raise AssertionError("finish raises")


@each_check
def test_a_hello_is_judged_alike_whole_in_bytes_and_in_halves(check: Check) -> None:
    data = check.data
    assert outcome(check, [data]) == check.reason
    assert outcome(check, [data[index : index + 1] for index in range(len(data))]) == check.reason
    step = 1 + len(data) // 40
    assert {outcome(check, [data[:cut], data[cut:]]) for cut in range(0, len(data) + 1, step)} == {check.reason}


def test_there_are_more_checks_than_the_strongest_gate_was_given() -> None:
    assert len({check.data + "".join(check.exceptions).encode() for check in CHECKS}) == len({check.what for check in CHECKS}) >= 69
    assert {check.reason for check in CHECKS} == {*HELLO_FAULTS, "allowed", "sni_missing", "sni_mismatch", "sni_encrypted"}


def test_a_tls_rule_for_addresses_asks_for_tls_and_for_no_name() -> None:
    for extensions in ((), (sni(b"any.example"),)):
        found = ClientHelloReader().receive_data(hello(*extensions))
        assert found is not None
        assert judge_hello(found, TlsDemand(name=None)) == "allowed"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["tls12", "tls13"])
def test_what_openssl_sends_is_read(version: ssl.TLSVersion) -> None:
    data = real(WANTED, protocols=("h2", "http/1.1"), version=version)
    expected = ClientHello(server_name=WANTED, protocols=(b"h2", b"http/1.1"), is_encrypted=False)
    assert ClientHelloReader().receive_data(data) == expected
    for size in (1, 7, 100):
        assert ClientHelloReader().receive_data(records(data[5:], size)) == expected
    found = ClientHelloReader().receive_data(real(None, version=version))
    assert found is not None
    assert (found.server_name, found.protocols) == (None, ())


def test_a_stream_without_end_is_given_up() -> None:
    reader = ClientHelloReader()
    stream = records(message(bytes(16000)), 1)
    given = 0
    while given + 1000 <= RECEIVED_MAX:
        assert reader.receive_data(stream[given : given + 1000]) is None
        given += 1000
    with pytest.raises(Malformed) as fault:
        reader.receive_data(stream[given : given + 1000])
    assert fault.value.reason == "hello_too_large"


def test_what_is_no_tls_is_known_by_its_first_byte() -> None:
    for first in range(256):
        reader = ClientHelloReader()
        if first == 22:
            assert reader.receive_data(bytes([first])) is None
        else:
            with pytest.raises(Malformed):
                reader.receive_data(bytes([first]))
