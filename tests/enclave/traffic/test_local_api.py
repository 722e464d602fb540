"""The attestation API of the customer process, over real sockets."""

import base64
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.enclave.traffic.local_api import BODY_MAX, LocalApi, LocalApiLimits, serve_local_api
from runtime.net.endpoint import Tcp, Unix, bound, connect, listen
from runtime.net.http import HttpClient, Request, Response
from runtime.protocol.binding import AppBinding, decode_binding, encode_prov, encode_public
from tests.enclave.traffic.attesters import ScriptedAttester, document_fields

JSON = ("content-type", "application/json")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Running:
    """An API on a TCP port and a unix socket, and requests to either."""

    def __init__(self, attester: ScriptedAttester, tcp: Tcp, unix: Unix) -> None:
        self.attester = attester
        self.tcp = tcp
        self.unix = unix

    async def request(
        self, body: object = None, *, method: str = "POST", path: str = "/attestation-doc", accept: str = "", raw: bytes | None = None,
        content_type: str = "application/json", over: Tcp | Unix | None = None,
    ) -> Response:  # fmt: skip
        async with await connect(over or self.unix) as stream:
            data = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
            headers = [("content-type", content_type)] if content_type else []
            headers += [("accept", accept)] if accept else []
            return await HttpClient(stream, host="localhost").request(method, path, headers=headers, body=data, max_body=64 * 1024)


@asynccontextmanager
async def running(directory: Path, attester: ScriptedAttester, **limits: int) -> AsyncGenerator[Running]:
    tcp, unix = await listen(Tcp("127.0.0.1", 0)), await listen(Unix(str(directory / "api")))
    where = bound(tcp)
    assert isinstance(where, Tcp)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_local_api, [tcp, unix], attester, limits=LocalApiLimits(**limits)))
        yield Running(attester, where, Unix(str(directory / "api")))
        nursery.cancel_scope.cancel()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncGenerator[Running]:
    async with running(tmp_path, ScriptedAttester()) as api:
        yield api


def code_of(response: Response) -> str:
    assert response.header("content-type") == "application/problem+json"
    document = json.loads(response.body)
    assert document["status"] == response.status
    return str(document["code"])


async def test_a_document_commits_to_what_was_asked_for_and_says_app(api: Running) -> None:
    asked = {"nonce": b64(b"n" * 32), "challenge": b64(b"challenge"), "publicKey": b64(b"k" * 91)}
    response = await api.request(asked)
    assert (response.status, response.header("content-type")) == (200, "application/cbor")
    fields = document_fields(response.body)
    assert (fields.nonce, fields.public_key) == (b"n" * 32, b"k" * 91)
    assert decode_binding(fields.user_data or b"") == AppBinding(challenge=b"challenge")


async def test_both_listeners_serve_the_same_api(api: Running) -> None:
    for over in (api.tcp, api.unix):
        assert (await api.request({}, over=over)).status == 200


async def test_without_a_challenge_the_document_says_app_all_the_same(api: Running) -> None:
    fields = document_fields((await api.request({})).body)
    assert fields.nonce is None
    assert fields.public_key is None
    assert decode_binding(fields.user_data or b"") == AppBinding(challenge=b"")


@pytest.mark.parametrize(
    "accept", ["application/json", "application/cbor;q=0.5, application/json", "text/html, application/json;q=0.9"]
)
async def test_json_is_given_to_who_prefers_it(api: Running, accept: str) -> None:
    response = await api.request({"nonce": b64(b"n")}, accept=accept)
    assert response.header("content-type") == "application/json"
    document = base64.b64decode(json.loads(response.body)["attestation_doc"], validate=True)
    assert document_fields(document).nonce == b"n"


@pytest.mark.parametrize(
    "accept", ["*/*", "application/*", "application/json, application/cbor", "application/json;q=0", "application/json;q=x"]
)
async def test_the_document_itself_is_given_to_who_does_not(api: Running, accept: str) -> None:
    assert (await api.request({}, accept=accept)).header("content-type") == "application/cbor"


@pytest.mark.parametrize("text", ["-_-_", "+/+/", "YQ", "YQ==", "YWI", "YWI="])
async def test_both_alphabets_of_base64_are_read_with_and_without_padding(api: Running, text: str) -> None:
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    expected = base64.b64decode(standard + "=" * (-len(standard) % 4))
    assert document_fields((await api.request({"nonce": text})).body).nonce == expected


@pytest.mark.parametrize(
    ("body", "code", "named"),
    [
        ([], "bad_json", "object"),
        ("text", "bad_json", "object"),
        (1, "bad_json", "object"),
        ({"nonce": 1}, "wrong_type", "nonce"),
        ({"publicKey": ["YQ=="]}, "wrong_type", "publicKey"),
        ({"challenge": {"a": 1}}, "wrong_type", "challenge"),
        ({"challenge": "YQ=="[:-1]}, "bad_base64", "challenge"),
        ({"nonce": "YR=="}, "bad_base64", "nonce"),
        ({"nonce": "Y Q="}, "bad_base64", "nonce"),
        ({"nonce": "Y"}, "bad_base64", "nonce"),
        ({"nonce": "YQ==YQ=="}, "bad_base64", "nonce"),
        ({"nonce": "\u00e9\u00e9\u00e9\u00e9"}, "bad_base64", "nonce"),
        ({"nonce": "===="}, "bad_base64", "nonce"),
        ({"user_data": "YQ=="}, "unknown_key", "user_data"),
        ({"Nonce": "YQ=="}, "unknown_key", "Nonce"),
    ],
)
async def test_a_body_that_means_nothing_is_refused_by_the_name_of_its_key(
    api: Running, body: object, code: str, named: str
) -> None:
    response = await api.request(body)
    assert (response.status, code_of(response)) == (400, code)
    assert named in json.loads(response.body)["detail"]
    assert api.attester.asked == []


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"{}x", b"\xff\xfe", b"[" * 8000, b'{"nonce":"YQ==","nonce":"Yg=="}', b"NaN", b"{'a': 1}"]
)
async def test_what_is_not_one_json_object_is_refused(api: Running, raw: bytes) -> None:
    response = await api.request(raw=raw)
    assert response.status == 400
    assert code_of(response) in {"bad_json", "duplicate_key"}
    assert api.attester.asked == []


@pytest.mark.parametrize(
    ("field", "most"), [("nonce", 512), ("publicKey", 1024), ("challenge", 512 - len(b"\xa2\x00\x63app\x01\x59\x01\xf0"))]
)
async def test_the_limits_of_the_device_hold_before_it_is_touched(api: Running, field: str, most: int) -> None:
    assert (await api.request({field: b64(bytes(most))})).status == 200
    assert len(api.attester.asked) == 1
    assert len(api.attester.asked[0].user_data or b"") <= 512
    response = await api.request({field: b64(bytes(most + 1))})
    assert (response.status, code_of(response)) == (413, "too_large")
    assert field in json.loads(response.body)["detail"]
    assert len(api.attester.asked) == 1


async def test_a_body_larger_than_any_request_is_refused_unread(api: Running) -> None:
    response = await api.request(raw=b" " * (BODY_MAX + 1))
    assert (response.status, code_of(response)) == (413, "body_too_large")


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-8"])
async def test_whatever_the_content_type_says_the_body_is_json(api: Running, content_type: str) -> None:
    assert (await api.request({}, content_type=content_type)).status == 200
    assert code_of(await api.request(raw=b"a=b", content_type=content_type)) == "bad_json"


async def test_null_is_as_good_as_absent(api: Running) -> None:
    assert (await api.request({"nonce": None, "challenge": None, "publicKey": None})).status == 200
    assert api.attester.asked[-1].nonce is None


@pytest.mark.parametrize("path", ["/", "/attestation-doc/", "/attestation-doc%00", "//attestation-doc", "/metrics"])
async def test_an_unknown_path_is_not_found(api: Running, path: str) -> None:
    response = await api.request({}, path=path)
    assert (response.status, code_of(response)) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("GET", "/attestation-doc", "POST"), ("PUT", "/attestation-doc", "POST"), ("POST", "/livez", "GET, HEAD")],
)
async def test_a_wrong_method_is_told_the_right_one(api: Running, method: str, path: str, allow: str) -> None:
    response = await api.request(method=method, path=path)
    assert (response.status, response.header("allow"), code_of(response)) == (405, allow, "method_not_allowed")


async def test_livez_answers_without_the_device(api: Running) -> None:
    assert (await api.request(method="GET", path="/livez", content_type="")).status == 200
    assert (await api.request(method="GET", path="/livez?verbose", content_type="")).status == 200
    assert api.attester.asked == []


@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [
        ("nsm_stalled", 503, "attestation_unavailable"),
        ("nsm_busy", 503, "attestation_unavailable"),
        ("nsm_unavailable", 503, "attestation_unavailable"),
        ("nsm_input_too_large", 500, "attestation_failed"),
        ("nsm_protocol", 500, "attestation_failed"),
    ],
)
async def test_a_device_that_fails_says_whether_to_try_again_and_nothing_else(
    api: Running, reason: str, status: int, code: str
) -> None:
    api.attester.fails = reason
    response = await api.request({})
    assert (response.status, code_of(response)) == (status, code)
    assert (response.header("retry-after") is not None) == (status == 503)
    assert reason.encode() not in response.body


async def test_five_hundred_requests_at_once_are_served_or_told_to_come_back_and_hold_up_nobody(tmp_path: Path) -> None:
    statuses: list[int] = []
    lags: list[float] = []

    async with running(tmp_path, ScriptedAttester(takes=0.03), waiting_max=16) as api, trio.open_nursery() as nursery:

        async def measure() -> None:
            while True:
                before = trio.current_time()
                await trio.sleep(0.01)
                lags.append(trio.current_time() - before - 0.01)

        async def ask() -> None:
            response = await api.request({})
            statuses.append(response.status)
            if response.status == 503:
                assert code_of(response) == "attestation_busy"
                assert response.header("retry-after") == "1"

        nursery.start_soon(measure)
        async with trio.open_nursery() as asking:
            for _ in range(500):
                asking.start_soon(ask)
        nursery.cancel_scope.cancel()
    assert len(statuses) == 500
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 17
    assert max(lags) < 2.0  # generous: this machine is shared; a device call on the event loop alone would be 15 s


async def test_a_caller_that_goes_away_gives_its_place_back(autojump_clock: trio.testing.MockClock) -> None:
    attester = ScriptedAttester(takes=10)
    api = LocalApi(attester, waiting_max=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(api.answer, request(b"{}"))
        await trio.testing.wait_all_tasks_blocked()
        assert (await api.answer(request(b"{}"))).status == 503
        nursery.cancel_scope.cancel()
    assert (await api.answer(request(b"{}"))).status == 200


def request(body: bytes) -> Request:
    return Request(method="POST", path="/attestation-doc", query="", headers=(JSON,), body=body)


PUBLIC = encode_public(spki_digest=bytes(48), exporter=bytes(32), config_digest=bytes(48))
PROV = encode_prov(bytes(48))
encoded = st.sampled_from([PUBLIC, PROV, PUBLIC[1:], PROV[1:]]) | st.binary(max_size=600)


@settings(max_examples=200, deadline=None)
@given(st.fixed_dictionaries({}, optional={"nonce": encoded, "challenge": encoded, "publicKey": encoded}))
def test_no_request_makes_a_document_that_passes_for_other_evidence(asked: dict[str, bytes]) -> None:
    attester = ScriptedAttester()
    body = json.dumps({key: b64(value) for key, value in asked.items()}).encode()
    response = trio.run(LocalApi(attester, waiting_max=1).answer, request(body))
    assert response.status in {200, 413}
    for made in attester.asked:
        assert decode_binding(made.user_data or b"") == AppBinding(challenge=asked.get("challenge", b""))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_body_gives_an_answer(body: bytes) -> None:
    response = trio.run(LocalApi(ScriptedAttester(), waiting_max=1).answer, request(body))
    assert response.status in {200, 400, 413}
