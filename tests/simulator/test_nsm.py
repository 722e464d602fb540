"""The simulated module alone: its documents, its refusals, its faults, and any bytes at all."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cbor2
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from runtime.net.endpoint import Unix, listen
from runtime.protocol.errors import Malformed
from runtime.protocol.nsm import (
    RESPONSE_MAX,
    Attest,
    Attested,
    DescribeNsm,
    DescribePcr,
    ExtendPcr,
    Failure,
    GetRandom,
    LockPcrs,
    NsmErrorCode,
    PcrDescription,
    Request,
    Response,
    decode_response,
    encode_request,
)
from runtime.simulator.nsm import BOOT_PCRS, Faults, SimulatedDevice, SimulatedNsm, make_module_id, serve_nsm
from runtime.simulator.pki import make_root
from runtime.verifier.appraise import AppraisalFailed, appraise
from runtime.verifier.reasons import Reason
from runtime.verifier.reference import ANY_MEASUREMENT
from tests.simulator.documents import opened

NOW = datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC)
INSTANCE_ID = "i-0123456789abcdef0"
MODULE_ID = f"{INSTANCE_ID}-enc0123456789abcdef"
MEASURED = {0: b"\x10" * 48, 1: b"\x11" * 48, 2: b"\x12" * 48, 3: b"\x13" * 48, 8: b"\x18" * 48}
ROOT = make_root(now=NOW - timedelta(days=1))
PCR4 = hashlib.sha384(bytes(48) + INSTANCE_ID.encode()).digest()


def module(*, debug: bool = False, now: Callable[[], datetime] = lambda: NOW) -> SimulatedNsm:
    return SimulatedNsm(ROOT, module_id=MODULE_ID, pcrs=MEASURED, now=now, debug=debug)


def ask(nsm: SimulatedNsm, request: Request) -> Response:
    return decode_response(nsm.handle(encode_request(request)))


def attest(nsm: SimulatedNsm, *, nonce: bytes | None = None, user_data: bytes | None = None) -> bytes:
    response = ask(nsm, Attest(nonce=nonce, user_data=user_data))
    assert isinstance(response, Attested)
    return response.document


def test_a_document_is_signed_under_the_root_and_says_what_was_asked() -> None:
    fields = opened(attest(module(), nonce=b"nonce", user_data=b""), ROOT.certificate)
    assert fields["module_id"] == MODULE_ID
    assert fields["digest"] == "SHA384"
    assert fields["timestamp"] == int(NOW.timestamp() * 1000)
    assert (fields["nonce"], fields["user_data"], fields["public_key"]) == (b"nonce", b"", None)


def test_a_document_has_the_genuine_form_to_the_byte() -> None:
    document = attest(module())
    assert document.startswith(bytes.fromhex("8444a1013822a059"))  # no tag, {1: -35}, {}, a payload of 256 bytes or more
    payload = cbor2.loads(document)[2]
    assert (payload[0], payload[-1]) == (0xBF, 0xFF)
    fields = ["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle", "public_key", "user_data", "nonce"]
    assert list(cbor2.loads(payload)) == fields
    assert b"itimestamp\x1b" in payload  # eight bytes of milliseconds


def test_the_projects_verifier_accepts_a_document_under_the_development_root_only() -> None:
    document = attest(module(), nonce=b"nonce")
    result = appraise(document, now=NOW, roots=[ROOT.certificate], reference=ANY_MEASUREMENT, nonce=b"nonce")
    assert result.module_id == MODULE_ID
    assert dict(result.pcrs) == {index: bytes(48) for index in range(16)} | MEASURED | {4: PCR4}
    with pytest.raises(AppraisalFailed):
        appraise(document, now=NOW, roots=[make_root(now=NOW).certificate], reference=ANY_MEASUREMENT, nonce=b"nonce")


def test_the_verifier_accepts_the_document_of_every_hour_of_a_week() -> None:
    clock = NOW
    nsm = module(now=lambda: clock)
    for _ in range(7 * 24):
        clock += timedelta(hours=1)
        appraise(attest(nsm), now=clock, roots=[ROOT.certificate], reference=ANY_MEASUREMENT)


def test_pcrs_at_boot_are_what_was_measured_and_zero() -> None:
    pcrs = opened(attest(module()), ROOT.certificate)["pcrs"]
    assert pcrs == {index: bytes(48) for index in range(16)} | MEASURED | {4: PCR4}
    assert list(pcrs) == list(range(16))


def test_a_debug_enclave_has_zeroes_where_a_genuine_one_has_and_is_refused_as_one() -> None:
    document = attest(module(debug=True))
    pcrs = opened(document, ROOT.certificate)["pcrs"]
    assert {index for index, value in pcrs.items() if value != bytes(48)} == {3, 4}
    with pytest.raises(AppraisalFailed) as failure:
        appraise(document, now=NOW, roots=[ROOT.certificate], reference=ANY_MEASUREMENT)
    assert failure.value.codes == (Reason.DEBUG_ENCLAVE,)


def test_all_32_pcrs_fit_in_a_document() -> None:
    nsm = module()
    ask(nsm, LockPcrs(count=32))
    assert len(opened(attest(nsm), ROOT.certificate)["pcrs"]) == 32


def test_a_document_with_the_largest_request_fits_in_a_response() -> None:
    nsm = module()
    ask(nsm, LockPcrs(count=32))
    request = cbor2.dumps({"Attestation": {"user_data": bytes(4060), "nonce": None}})
    assert 4090 <= len(request) <= 4096
    response = nsm.handle(request)
    assert len(response) <= RESPONSE_MAX
    assert isinstance(decode_response(response), Attested)


@pytest.mark.parametrize("index", [*sorted(set(range(16)) - BOOT_PCRS), 16, 32])
def test_a_pcr_that_the_platform_does_not_measure_cannot_be_given(index: int) -> None:
    with pytest.raises(ValueError, match="measured at boot"):
        SimulatedNsm(ROOT, module_id=MODULE_ID, pcrs={index: bytes(48)}, now=lambda: NOW)


def test_a_pcr_of_another_size_cannot_be_given() -> None:
    with pytest.raises(ValueError, match="48 bytes"):
        SimulatedNsm(ROOT, module_id=MODULE_ID, pcrs={0: bytes(32)}, now=lambda: NOW)


def test_two_enclaves_on_one_instance_have_module_ids_of_the_genuine_form() -> None:
    first, second = make_module_id(INSTANCE_ID), make_module_id(INSTANCE_ID)
    assert first != second
    assert first.startswith(f"{INSTANCE_ID}-enc")
    assert len(first) == len(MODULE_ID)


@pytest.mark.parametrize(
    ("request_bytes", "code"),
    [
        (b"", NsmErrorCode.INVALID_OPERATION),
        (cbor2.dumps("SelfDestruct"), NsmErrorCode.INVALID_OPERATION),
        (cbor2.dumps({"DescribePCR": {"index": "0"}}), NsmErrorCode.INVALID_OPERATION),
        (cbor2.dumps({"ExtendPCR": {"index": 32, "data": b""}}), NsmErrorCode.INVALID_INDEX),
        (cbor2.dumps({"LockPCRs": {"range": 33}}), NsmErrorCode.INVALID_INDEX),
        (cbor2.dumps({"LockPCR": {"index": 15}}), NsmErrorCode.READ_ONLY_INDEX),
        (cbor2.dumps({"ExtendPCR": {"index": 0, "data": b"x"}}), NsmErrorCode.READ_ONLY_INDEX),
        (bytes(4097), NsmErrorCode.INPUT_TOO_LARGE),
    ],
)
def test_each_wrong_request_gets_its_error(request_bytes: bytes, code: NsmErrorCode) -> None:
    assert decode_response(module().handle(request_bytes)) == Failure(code=code)


def test_the_clock_can_be_skewed() -> None:
    nsm = module()
    nsm.faults = Faults(clock_skew=timedelta(minutes=-5))
    document = attest(nsm)
    assert opened(document, ROOT.certificate)["timestamp"] == int(NOW.timestamp() * 1000) - 300_000
    with pytest.raises(AppraisalFailed) as failure:
        appraise(document, now=NOW, roots=[ROOT.certificate], reference=ANY_MEASUREMENT)
    assert failure.value.codes == (Reason.DOCUMENT_STALE,)


def test_one_command_alone_can_be_made_to_fail() -> None:
    nsm = module()
    nsm.faults = Faults(refused={GetRandom: NsmErrorCode.INTERNAL_ERROR})
    assert ask(nsm, GetRandom()) == Failure(code=NsmErrorCode.INTERNAL_ERROR)
    assert isinstance(ask(nsm, DescribePcr(index=0)), PcrDescription)


async def test_an_answer_can_be_delayed(nursery: trio.Nursery, tmp_path: Path, autojump_clock: MockClock) -> None:
    nsm = module()
    nsm.faults = Faults(delay=1.5)
    await nursery.start(serve_nsm, nsm, await listen(Unix(str(tmp_path / "nsm"))))
    async with SimulatedDevice(str(tmp_path / "nsm")) as device:
        await device.exchange(encode_request(DescribeNsm()))
    assert trio.current_time() == 1.5


async def test_two_connections_see_one_bank_of_pcrs(nursery: trio.Nursery, tmp_path: Path) -> None:
    path = str(tmp_path / "nsm")
    await nursery.start(serve_nsm, module(), await listen(Unix(path)))
    async with SimulatedDevice(path) as first, SimulatedDevice(path) as second:
        await first.exchange(encode_request(ExtendPcr(index=16, data=b"x")))
        response = decode_response(await second.exchange(encode_request(DescribePcr(index=16))))
    assert response == PcrDescription(locked=False, value=hashlib.sha384(bytes(48) + b"x").digest())


@pytest.mark.parametrize("sent", [b"\x00\x00\x10\x01" + bytes(4097), b"\x7f\xff\xff\xff", b"\x00\x00"])
async def test_a_connection_that_does_not_keep_to_frames_ends_alone(nursery: trio.Nursery, tmp_path: Path, sent: bytes) -> None:
    path = str(tmp_path / "nsm")
    await nursery.start(serve_nsm, module(), await listen(Unix(path)))
    async with SimulatedDevice(path) as device, await trio.open_unix_socket(path) as hostile:
        await hostile.send_all(sent)
        await hostile.send_eof()
        with pytest.raises((trio.BrokenResourceError, AssertionError)):
            assert await hostile.receive_some()
        assert await device.exchange(encode_request(DescribeNsm()))


names = st.sampled_from(["GetRandom", "DescribeNSM", "DescribePCR", "ExtendPCR", "LockPCR", "LockPCRs", "Attestation", "Error"])
fields = st.dictionaries(
    st.sampled_from(["index", "data", "range", "user_data", "nonce", "public_key", "other"]),
    st.none() | st.booleans() | st.integers(-1, 70_000) | st.integers(0, 33) | st.binary(max_size=1100) | st.text(max_size=9),
)
near_requests = names.map(cbor2.dumps) | st.builds(lambda name, body: cbor2.dumps({name: body}), names, fields)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=120) | near_requests, max_size=6))
def test_any_bytes_get_a_well_formed_response_and_leave_the_platforms_pcrs_alone(requests: list[bytes]) -> None:
    nsm = module()
    for request in requests:
        response = nsm.handle(request)
        assert len(response) <= RESPONSE_MAX
        try:
            decode_response(response)
        except Malformed:
            pytest.fail(f"{request.hex()} gave {response.hex()}")
    for index, value in MEASURED.items():
        assert ask(nsm, DescribePcr(index=index)) == PcrDescription(locked=True, value=value)
