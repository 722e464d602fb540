"""Who a request came from: what is believed of it, what the customer process is told, and what the client gets back."""

from pathlib import Path

import pytest
import trio
import trio.testing

from runtime.enclave.traffic.http_policy import HttpPolicy
from runtime.protocol.proxy_header import PREFIX_SIZE, ProxyHeader, parse_proxy_header, remaining_size
from tests.enclave.traffic.harness import CLIENT, GET, OK, App, Peer, answering, ingress, proxy_header
from tests.enclave.traffic.test_http_names import values

ADDRESSES = ProxyHeader(source=(CLIENT, 40000), destination=("198.51.100.1", 443))
OURS = {
    b"x-forwarded-for": b"203.0.113.7",
    b"x-real-ip": b"203.0.113.7",
    b"x-forwarded-host": b"a.example",
    b"x-forwarded-proto": b"https",
    b"forwarded": b'for="203.0.113.7";by=_parent;host="a.example";proto=https',
}


async def seen_by_the_application(directory: Path, fields: bytes, trusted: set[bytes], source: str | None = CLIENT) -> bytes:
    policy = HttpPolicy(trusted_headers=frozenset(trusted))
    async with ingress(directory, answering(OK), policy=policy) as gate, gate.client(source=source) as client:
        await client.send(GET[:-2] + fields + b"\r\n")
        assert (await client.answer())[0] == 200
        return gate.upstreams[0].seen


@pytest.mark.parametrize(
    ("name", "given", "handed_on"),
    [
        (b"x-forwarded-for", [b"192.0.2.1"], b"192.0.2.1, 203.0.113.7"),
        (b"x-forwarded-for", [b"192.0.2.1, 192.0.2.2", b"192.0.2.3"], b"192.0.2.1, 192.0.2.2, 192.0.2.3, 203.0.113.7"),
        (b"x-forwarded-for", [b""], b"203.0.113.7"),
        (b"x-forwarded-for", [], b"203.0.113.7"),
        (b"forwarded", [b"for=192.0.2.1"], b"for=192.0.2.1, " + OURS[b"forwarded"]),
        (b"x-real-ip", [b"192.0.2.1"], b"192.0.2.1"),
        (b"x-real-ip", [b"192.0.2.1", b"192.0.2.2"], b"203.0.113.7"),
        (b"x-forwarded-proto", [b"http"], b"http"),
        (b"x-forwarded-host", [b"front.example"], b"front.example"),
        (b"x-forwarded-host", [b"one", b"two"], b"a.example"),
    ],
)
async def test_a_trusted_field_is_continued_or_taken_and_the_others_are_written_here(
    tmp_path: Path, name: bytes, given: list[bytes], handed_on: bytes
) -> None:
    fields = b"".join(b"%b: %b\r\n" % (name.title(), value) for value in given)
    others = b"".join(b"%b: forged\r\n" % each for each in OURS if each != name)
    seen = await seen_by_the_application(tmp_path, fields + others, {name})
    for each, value in (OURS | {name: handed_on}).items():
        assert values(seen, each) == [value]
    assert b"forged" not in seen


async def test_trust_in_a_field_is_no_trust_in_what_looks_like_it(tmp_path: Path) -> None:
    seen = await seen_by_the_application(
        tmp_path, b"X_Forwarded_For: forged\r\nX-Forwarded-Fork: forged\r\n", set(OURS) | {b"x-request-id"}
    )
    assert b"forged" not in seen
    assert values(seen, b"x-forwarded-for") == [b"203.0.113.7"]


async def test_without_a_clients_address_the_trusted_chain_ends_where_it_ended(tmp_path: Path) -> None:
    seen = await seen_by_the_application(tmp_path, b"X-Forwarded-For: 192.0.2.1\r\n", {b"x-forwarded-for"}, source=None)
    assert values(seen, b"x-forwarded-for") == [b"192.0.2.1"]
    assert values(seen, b"x-real-ip") == []
    assert b"_parent" not in seen


@pytest.mark.parametrize(
    ("given", "is_taken"),
    [
        ([b"order-17.a_B~c"], True),
        ([b"a" * 128], True),
        ([b"a" * 129], False),
        ([b'a"b'], False),
        ([b"a b"], False),
        ([b""], False),
        ([b"one", b"two"], False),
    ],
)
async def test_a_trusted_name_of_a_request_is_its_name_in_the_log_and_in_the_answer(
    tmp_path: Path, given: list[bytes], is_taken: bool
) -> None:
    policy = HttpPolicy(trusted_headers=frozenset({b"x-request-id"}), answers_request_id=True)
    async with ingress(tmp_path, answering(OK), policy=policy) as gate, gate.client() as client:
        await client.send(GET[:-2] + b"".join(b"X-Request-Id: %b\r\n" % value for value in given) + b"\r\n")
        _, fields, _ = await client.answer()
        await trio.testing.wait_all_tasks_blocked()
        (seen,), (entry,) = values(gate.upstreams[0].seen, b"x-request-id"), gate.requests
        assert fields["x-request-id"] == seen.decode() == entry["id"]
        assert (seen in given) == is_taken
        (trace,) = values(gate.upstreams[0].seen, b"traceparent")
        assert len(trace) == 55  # whatever the request is called


async def test_every_answer_has_the_name_of_its_request_if_that_is_wanted_and_it_alone(tmp_path: Path) -> None:
    named = b"HTTP/1.1 200 OK\r\nX-Request-Id: forged\r\nx-request-id: forged\r\nContent-Length: 2\r\n\r\nok"
    policy = HttpPolicy(answers_request_id=True)
    async with ingress(tmp_path, answering(named, named), policy=policy) as gate, gate.client() as client:
        asked = (
            GET,
            GET.replace(b"/ ", b"/.well-known/attestation "),
            GET.replace(b"a.example", b"b.example"),
            GET,
            b"GET /\r\n\r\n",
        )
        given = []
        for raw in asked:
            await client.send(raw)
            given.append((await client.answer())[1]["x-request-id"])
        await trio.testing.wait_all_tasks_blocked()
        assert given == [entry["id"] for entry in gate.requests]
        assert len(set(given)) == len(asked)


async def test_an_answer_names_no_request_unless_that_is_wanted(tmp_path: Path) -> None:
    async with ingress(tmp_path, App()) as gate, gate.client() as client:
        await client.send(GET)
        assert "x-request-id" not in (await client.answer())[1]


async def greeting(peer: Peer) -> ProxyHeader:
    prefix = await peer.exactly(PREFIX_SIZE)
    return parse_proxy_header(prefix + await peer.exactly(remaining_size(prefix)))


async def test_a_process_that_wants_proxy_headers_gets_one_client_on_each_connection(tmp_path: Path) -> None:
    greeted: list[ProxyHeader] = []

    async def script(peer: Peer) -> None:
        greeted.append(await greeting(peer))
        await App()(peer)

    async with ingress(tmp_path, script, tells_client=True) as gate:
        async with gate.client() as one, gate.client(source="2001:db8::7") as other, gate.client(source=None) as local:
            for client in (one, other, local, one, other, local):
                await client.send(GET)
                assert (await client.answer())[0] == 200
        await trio.testing.wait_all_tasks_blocked()
        assert [header.source for header in greeted] == [(CLIENT, 40000), ("2001:db8::7", 40000), None]
        async with gate.client() as again:  # no connection of another client's, even of the same address, serves it
            await again.send(GET)
            await again.answer()
        assert greeted[3] == ADDRESSES


@pytest.mark.parametrize("mode", ["tcp", "passthrough"])
async def test_bytes_that_are_only_carried_begin_with_a_proxy_header_if_that_is_wanted(tmp_path: Path, mode: str) -> None:
    async def script(peer: Peer) -> None:
        header = await greeting(peer)
        await peer.send(repr(header).encode() + b"\n" + await peer.exactly(5))

    async with ingress(tmp_path, script, mode=mode, tells_client=True) as gate:  # type: ignore[arg-type] # of a parameter
        if mode == "tcp":
            async with gate.client() as client:
                await client.send(b"hello")
                assert await client.until(b"hello") == repr(ADDRESSES).encode() + b"\nhello"
        else:
            async with await gate.raw() as stream:
                await stream.send_all(proxy_header() + b"hello")
                assert await Peer(stream).until(b"hello") == repr(ADDRESSES).encode() + b"\nhello"
