"""A parent that does its work and keeps every byte of it, from the first frame of the boot to a client's request: what has it learnt?"""

import base64
import secrets
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from runtime.client.session import Policy, Target, open_session
from runtime.enclave.traffic.ingress import Ingress, serve_ingress
from runtime.net.endpoint import Endpoint, Tcp, bound, connect, listen
from runtime.net.http import Request, Response, serve_http
from runtime.net.serve import serve
from runtime.net.tls import server_context
from runtime.protocol.sealing import Suite
from runtime.verifier.reference import ReferenceValues
from tests.scenarios.boots import Booted, Enclave, enclave_of
from tests.scenarios.leaks import find_leaks, pieces
from tests.scenarios.world import World

REQUEST = b"a body that only the client and the customer process may read: " + secrets.token_hex(16).encode()
ANSWER = b"an answer that only the customer process and the client may read: " + secrets.token_hex(16).encode()


async def serve_somewhere(nursery: trio.Nursery, handler: Callable[[trio.SocketStream], Awaitable[None]]) -> Endpoint:
    listener = await listen(Tcp("127.0.0.1", 0))
    await nursery.start(partial(serve, listener, handler, limit=16))
    return bound(listener)


async def customer(received: list[bytes], stream: trio.SocketStream) -> None:
    async def answer(request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        received.append(request.body)
        return Response(200, (("content-type", "text/plain"),), ANSWER)

    await serve_http(stream, answer, max_body=1 << 16)


async def request_through_the_parent(world: World, enclave: Enclave, booted: Booted) -> list[bytes]:
    """A client attests the enclave and sends it a request on the same connection. Gives the bodies that arrived."""
    received: list[bytes] = []
    context = server_context(booted.identities)
    ingress = Ingress(
        mode="http",
        upstream=await serve_somewhere(world.nursery, partial(customer, received)),
        tls_context=lambda: context,
        attester=enclave.nsm,
        config_digest=enclave.image.config.digest,
        ready=lambda: True,
        log=lambda *_, **__: None,
    )
    listener = await listen(Tcp("127.0.0.1", 0))
    await world.nursery.start(serve_ingress, listener, ingress)
    carry = partial(enclave.parent.handle_ingress, connect=partial(connect, bound(listener)))
    policy = Policy(
        roots=[world.root.certificate],
        reference=ReferenceValues(measurements=(enclave.image.measurement,)),
        ca=[world.keys.issuing_ca.certificate],
    )
    async with open_session(
        Target(host="app.test", port=443),
        policy,
        nonce=secrets.token_bytes(32),
        clock=world.now,
        address=await serve_somewhere(world.nursery, carry),
    ) as session:
        answer = await session.request("POST", "/orders", body=REQUEST)
    assert (answer.status, answer.body) == (200, ANSWER)
    return received


def private_keys(enclave: Enclave, booted: Booted) -> dict[str, bytes]:
    """Every private key of this boot, as a number and as it would be written to a file."""
    sealing, tls = enclave.provisioning._keys.sealing, enclave.provisioning._keys.tls
    assert booted.provisioned is not None
    assert sealing is not None
    assert tls is not None
    found = {
        "lease key": booted.provisioned.released.bundle.lease_key.reveal(),
        "TLS key": _scalar(tls.private),
        "TLS key's file": tls.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    }
    match sealing.private:
        case X25519PrivateKey() as private:
            found["HPKE key"] = private.private_bytes_raw()
        case EllipticCurvePrivateKey() as private:
            found["HPKE key"] = _scalar(private)
        case _:
            pass  # the library gives no X-Wing key away, not even to this test
    return found


def _scalar(private: EllipticCurvePrivateKey) -> bytes:
    return private.private_numbers().private_value.to_bytes(32, "big")


@pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.name)
async def test_a_parent_that_keeps_every_byte_of_a_whole_run_learns_no_secret_and_no_key(
    mock_clock: MockClock, world: World, suite: Suite
) -> None:
    image = world.image()
    world.register(image, suites=(suite,))
    enclave = enclave_of(world, image)
    booted = await enclave.boot()
    assert booted.values() == {name: secret.value.reveal() for name, secret in world.secrets.items()}
    assert await request_through_the_parent(world, enclave, booted) == [REQUEST]

    kept = [bytes(entry.data) for entry in enclave.parent.recording]
    assert {entry.link for entry in enclave.parent.recording if entry.data} == {"control", "egress", "ingress"}
    assert booted.provisioned is not None
    hidden = {
        **booted.values(),
        **private_keys(enclave, booted),
        **pieces("bundle", booted.provisioned.released.bundle.encode()),
        "request": REQUEST,
        "answer": ANSWER,
    }
    assert len(hidden) > 20
    assert find_leaks(kept, hidden) == []


async def test_the_search_finds_what_the_parent_is_meant_to_read(mock_clock: MockClock, world: World) -> None:
    image = world.image()
    world.register(image)
    enclave = enclave_of(world, image)
    tickets: list[bytes] = []
    buy = enclave.parent.tickets

    async def buy_and_keep() -> bytes | None:
        tickets.append(await buy() or b"")
        return tickets[-1]

    enclave.parent.tickets = buy_and_keep
    assert (await enclave.boot()).reason is None
    read = [bytes(entry.data) for entry in enclave.parent.recording]
    known = {"ticket": tickets[0], "boot id": enclave.boot_id, "name": b"provisioning.challenged", "nothing": bytes(range(64, 96))}
    assert find_leaks(read, known) == ["ticket", "boot id", "name"]


async def test_a_secret_that_a_customer_process_prints_is_found(mock_clock: MockClock, world: World) -> None:
    image = world.image()
    world.register(image)
    enclave = enclave_of(world, image)
    encoded = base64.b64encode(b"?" + world.secrets["API_TOKEN"].value.reveal())
    enclave.link.log("app", "stdout", b"token: " + encoded)
    assert (await enclave.boot()).reason is None
    values = {name: secret.value.reveal() for name, secret in world.secrets.items()}
    assert find_leaks(enclave.parent.recorded("control", "out"), values) == ["API_TOKEN"]


@given(
    secret=st.binary(min_size=16, max_size=80),
    before=st.binary(max_size=7),
    after=st.binary(max_size=7),
    encode=st.sampled_from([bytes, lambda d: d.hex().encode(), lambda d: d.hex().upper().encode(), base64.b64encode]),
    url_safe=st.booleans(),
)
def test_the_search_finds_a_secret_in_every_form_and_at_every_place(
    secret: bytes, before: bytes, after: bytes, encode: Callable[[bytes], bytes], url_safe: bool
) -> None:
    if encode is base64.b64encode and url_safe:
        encode = base64.urlsafe_b64encode
    haystack = encode(before + secret + after)
    assert find_leaks([b"", b"nothing", haystack], {"it": secret}) == ["it"]
    middle = len(secret) // 2
    other = secret[:middle] + bytes((secret[middle] ^ 0xFF,)) + secret[middle + 1 :]
    assert find_leaks([encode(before + other + after)], {"it": secret}) == []
