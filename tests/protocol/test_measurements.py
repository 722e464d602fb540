"""What registers hold, held against hashlib alone, another CBOR and the registers of a genuine enclave."""

from hashlib import sha384

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.protocol import measurements
from runtime.protocol.document import parse_document
from tests.support.vectors import document_bytes

ZERO = bytes(48)
PRODUCTION = "20260630-us-east-1-prod-277e236b.cbor"


def extended(*parts: bytes) -> bytes:
    value = ZERO
    for part in parts:
        value = sha384(value + part).digest()
    return value


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_register_is_extended_by_hashing_it_with_the_data(first: bytes, second: bytes) -> None:
    assert measurements.extended_once(first) == extended(first)
    assert measurements.extend(measurements.extend(ZERO, first), second) == extended(first, second)


def test_the_instance_register_of_a_genuine_enclave_is_that_of_its_instance() -> None:
    document = parse_document(document_bytes(PRODUCTION))
    instance = document.module_id.partition("-enc")[0]
    assert document.pcrs[measurements.INSTANCE_PCR] == measurements.instance_register(instance)
    assert measurements.instance_register(instance + "0") != measurements.instance_register(instance)


def test_the_role_register_is_of_the_arn_itself() -> None:
    arn = "arn:aws:iam::123456789012:role/enclave"
    assert measurements.role_register(arn) == extended(arn.encode())


def test_the_config_commitment_is_that_of_the_specification() -> None:
    """Section 1.3: H(dCBOR(["config", config_digest, host parameters])), whatever the order of the parameters."""
    digest = b"\x04" * 48
    parameters = {"zone": "a", "cluster": "blue"}
    expected = sha384(cbor2.dumps(["config", digest, parameters], canonical=True)).digest()
    assert measurements.config_commitment(digest, parameters) == expected
    assert measurements.config_commitment(digest, dict(reversed(parameters.items()))) == expected


@pytest.mark.parametrize(
    ("digest", "parameters"),
    [(b"\x05" * 48, {}), (b"\x04" * 48, {"a": ""}), (b"\x04" * 48, {"a": "c"}), (b"\x04" * 48, {"b": "a"}), (b"\x04" * 48, {})],
    ids=repr,
)
def test_every_part_of_a_config_changes_its_commitment(digest: bytes, parameters: dict[str, str]) -> None:
    assert measurements.config_commitment(digest, parameters) != measurements.config_commitment(b"\x04" * 48, {"a": "b"})


@given(st.binary(min_size=1, max_size=100))
def test_the_key_commitment_is_that_of_the_specification(key: bytes) -> None:
    expected = sha384(cbor2.dumps(["key", sha384(key).digest()], canonical=True)).digest()
    assert measurements.key_commitment(key) == expected


def test_the_live_commitment_is_that_of_the_specification() -> None:
    assert measurements.live_commitment() == sha384(b"prov/1 live").digest()


def test_no_commitment_can_be_taken_for_another() -> None:
    commitments = {
        measurements.live_commitment(),
        measurements.key_commitment(b"prov/1 live"),
        measurements.config_commitment(sha384(b"prov/1 live").digest(), {}),
        measurements.key_commitment(b""),
    }
    assert len(commitments) == 4


def test_the_runtimes_registers_are_those_of_the_specification_and_its_own_to_extend() -> None:
    assert (measurements.CONFIG_PCR, measurements.KEY_PCR, measurements.LIVE_PCR) == (16, 17, 18)
    assert {16, 17, 18} <= set(measurements.APPLICATION_PCRS)
    assert not set(measurements.APPLICATION_PCRS) & {*measurements.IMAGE_PCRS, measurements.ROLE_PCR, measurements.INSTANCE_PCR}


def test_an_images_registers_are_over_its_sections_in_their_order() -> None:
    """PCR 0 over all, PCR 1 over kernel, command line and first ramdisk, PCR 2 over the other ramdisks."""
    registers = measurements.image_registers(b"kernel", b"console", [b"runtime", b"customer", b"more"])
    assert registers == {
        0: extended(sha384(b"kernelconsoleruntimecustomermore").digest()),
        1: extended(sha384(b"kernelconsoleruntime").digest()),
        2: extended(sha384(b"customermore").digest()),
    }


def test_the_customers_ramdisk_changes_pcr_0_and_2_and_leaves_1() -> None:
    one = measurements.image_registers(b"kernel", b"console", [b"runtime", b"customer"])
    other = measurements.image_registers(b"kernel", b"console", [b"runtime", b"another customer"])
    assert {index for index in one if one[index] != other[index]} == {0, 2}


def test_an_image_without_ramdisks_measures_an_empty_application() -> None:
    registers = measurements.image_registers(b"kernel", b"console", [])
    assert registers[0] == registers[1] == extended(sha384(b"kernelconsole").digest())
    assert registers[2] == extended(sha384().digest())
