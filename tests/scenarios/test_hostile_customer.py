"""A customer process that turned hostile after the boot, with the security module, the local API, the public endpoint and a parent that
is in league with it. What it cannot have is a second release: PCR 18 was locked before it was started."""

import base64
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock

from runtime.enclave.identity.certificates import make_tls_key
from runtime.enclave.identity.nsm import NsmError
from runtime.enclave.traffic.local_api import LocalApi
from runtime.enclave.traffic.public_evidence import PublicEvidence
from runtime.net.http import HttpClient, Request
from runtime.net.tls import TlsIdentity, TlsStream
from runtime.protocol.binding import PROV_EXPORTER_LABEL, encode_prov
from runtime.protocol.digest import digest
from runtime.protocol.document import parse_document
from runtime.protocol.handshake import document_public_key
from runtime.protocol.measurements import CONFIG_PCR, KEY_PCR, LIVE_PCR, config_commitment, key_commitment
from runtime.protocol.messages import Challenge, Evidence, Hello, ProvError, transcript
from runtime.protocol.sealing import SealingKey, Suite, generate_key
from runtime.simulator.stolen_key import post
from tests.scenarios.boots import Booted, Enclave, enclave_of
from tests.scenarios.world import INSTANCE, SERVER_NAME, World

RUNTIME = "enclave-runtime/test"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A fresh challenge in the attacker's hands, on a connection of its own, with what an honest enclave would commit to."""

    tls: TlsStream
    http: HttpClient
    challenge: Challenge
    key: SealingKey
    request: bytes
    transcript: bytes

    @property
    def user_data(self) -> bytes:
        return encode_prov(self.transcript)

    async def offer(self, document: bytes) -> str:
        """What the provisioner answers to this document: "released", or its code."""
        evidence = Evidence(
            challenge_id=self.challenge.challenge_id,
            document=document,
            hpke_public_key=self.key.public,
            certificate_request=self.request,
        )
        answer = await post(self.http, "evidence", evidence.encode())
        await self.tls.aclose()
        return "released" if answer.status == 200 else ProvError.decode(answer.body).code


async def live_enclave(world: World) -> tuple[Enclave, Booted]:
    image = world.image()
    world.register(image)
    enclave = enclave_of(world, image)
    booted = await enclave.boot()
    assert booted.reason is None
    return enclave, booted


async def ask(world: World, enclave: Enclave, *, key: SealingKey | None = None, suite: Suite = Suite.X25519) -> Asked:
    """A hello with a fresh ticket, true in all that it says; `key` is the boot's own, or a fresh one of the attacker's."""
    key = key or generate_key(suite)
    ticket = await world.tickets("payments", INSTANCE)()
    assert ticket is not None
    tls = await world.man_in_the_middle().ask()
    http = HttpClient(tls, host=SERVER_NAME)
    hello = Hello(
        versions=(1,),
        suites=(key.suite,),
        ticket=ticket,
        client_nonce=secrets.token_bytes(32),
        config_digest=enclave.image.config.digest,
        boot_id=enclave.boot_id,
        purpose="setup",
        runtime=RUNTIME,
    )
    challenge = Challenge.decode((await post(http, "hello", hello.encode())).body)
    request = make_tls_key(("app.test",)).request
    committed = transcript(
        hello,
        challenge,
        hpke_public_key=key.public,
        channel=tls.exporter(PROV_EXPORTER_LABEL, challenge.challenge_id, 32),
        certificate_request=request,
    )
    return Asked(tls=tls, http=http, challenge=challenge, key=key, request=request, transcript=committed)


async def test_with_the_module_in_its_hands_it_makes_no_evidence_that_is_accepted(mock_clock: MockClock, world: World) -> None:
    enclave, _ = await live_enclave(world)
    asked = await ask(world, enclave)
    document = await enclave.nsm.attest(
        nonce=asked.challenge.server_nonce, user_data=asked.user_data, public_key=document_public_key(asked.key.public)
    )
    assert await asked.offer(document) == "refused"
    assert world.refusals() == ["phase_not_setup"]
    assert len(world.leases()) == 1


@pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.name)
async def test_even_with_the_boots_own_sealing_key_it_makes_none(mock_clock: MockClock, world: World, suite: Suite) -> None:
    """The strongest case: PCR 17 is right, everything in the document is right, and PCR 18 is there."""
    image = world.image()
    world.register(image, suites=(suite,))
    enclave = enclave_of(world, image)
    assert (await enclave.boot()).reason is None
    key = enclave.provisioning._keys.sealing
    assert key is not None
    asked = await ask(world, enclave, key=key)
    document = await enclave.nsm.attest(
        nonce=asked.challenge.server_nonce, user_data=asked.user_data, public_key=document_public_key(key.public)
    )
    assert await asked.offer(document) == "refused"
    assert world.refusals() == ["phase_not_setup"]
    assert world.audit("refused")[0].detail["why"].startswith("PCR 18 is there")
    assert len(world.leases()) == 1


async def test_the_same_evidence_before_the_boot_went_live_would_have_been_accepted(mock_clock: MockClock, world: World) -> None:
    """What the two above show is PCR 18 and nothing else."""
    image = world.image()
    world.register(image)
    enclave = enclave_of(world, image)
    key = generate_key(Suite.X25519)
    await enclave.nsm.extend_pcr(CONFIG_PCR, config_commitment(image.config.digest, {}))
    await enclave.nsm.lock_pcr(CONFIG_PCR)
    await enclave.nsm.extend_pcr(KEY_PCR, key_commitment(key.public))
    await enclave.nsm.lock_pcr(KEY_PCR)
    asked = await ask(world, enclave, key=key)
    document = await enclave.nsm.attest(nonce=asked.challenge.server_nonce, user_data=asked.user_data, public_key=key.public)
    assert await asked.offer(document) == "released"
    assert len(world.leases()) == 1


async def test_a_document_of_the_local_api_is_no_evidence_whatever_it_was_asked_for(mock_clock: MockClock, world: World) -> None:
    enclave, _ = await live_enclave(world)
    api = LocalApi(enclave.nsm, waiting_max=4)
    for challenge in (b"", b"prov/1", None):
        asked = await ask(world, enclave)
        body = {
            "nonce": base64.b64encode(asked.challenge.server_nonce).decode(),
            "challenge": base64.b64encode(asked.user_data if challenge is None else challenge).decode(),
            "publicKey": base64.b64encode(asked.key.public).decode(),
        }
        request = Request(
            method="POST",
            path="/attestation-doc",
            query="",
            headers=(("content-type", "application/json"),),
            body=json.dumps(body).encode(),
        )
        answer = await api.answer(request)
        assert answer.status == 200
        assert parse_document(answer.body).nonce == asked.challenge.server_nonce
        assert await asked.offer(answer.body) == "refused"
    assert world.refusals() == ["transcript_mismatch"] * 3
    assert len(world.leases()) == 1


class _Connection:
    """A client's connection to the public port whose exporter the attacker chose, which no true one allows."""

    def __init__(self, identity: TlsIdentity, exporter: bytes) -> None:
        self.own_certificate = identity.chain[0]
        self._exporter = exporter

    def exporter(self, label: bytes, context: bytes, size: int = 32) -> bytes:
        return self._exporter[:size]


async def test_a_document_of_the_public_endpoint_is_no_evidence(mock_clock: MockClock, world: World) -> None:
    enclave, booted = await live_enclave(world)
    asked = await ask(world, enclave)
    public = PublicEvidence(enclave.nsm, config_digest=enclave.image.config.digest)
    nonce = base64.urlsafe_b64encode(asked.challenge.server_nonce).decode().rstrip("=")
    request = Request(
        method="GET",
        path="/.well-known/attestation",
        query=f"nonce={nonce}",
        headers=(("accept", "application/cbor"),),
        body=b"",
    )
    connection = _Connection(booted.identities[0], asked.transcript)
    answer = await public.answer(request, client="192.0.2.1", connection=connection)
    assert answer.status == 200
    assert parse_document(answer.body).nonce == asked.challenge.server_nonce
    assert await asked.offer(answer.body) == "refused"
    assert world.refusals() == ["transcript_mismatch"]


async def test_no_register_that_the_runtime_uses_can_be_extended_again(mock_clock: MockClock, world: World) -> None:
    enclave, _ = await live_enclave(world)
    calls: list[Callable[[int], Awaitable[object]]] = [
        lambda index: enclave.nsm.extend_pcr(index, digest(b"prov/1 live")),
        enclave.nsm.lock_pcr,
    ]
    before = {index: await enclave.nsm.describe_pcr(index) for index in range(32)}
    for index in (CONFIG_PCR, KEY_PCR, LIVE_PCR, *range(32)):
        for call in calls:
            with pytest.raises(NsmError) as refused:
                await call(index)
            assert refused.value.reason == "nsm_read_only_index"
    assert {index: await enclave.nsm.describe_pcr(index) for index in range(32)} == before
    assert all(register.locked for register in before.values())


async def test_two_boots_later_the_ledger_of_leases_is_as_long_as_the_boots(mock_clock: MockClock, world: World) -> None:
    image = world.image()
    world.register(image)
    for boots in range(1, 4):
        enclave = enclave_of(world, image)
        assert (await enclave.boot()).reason is None
        asked = await ask(world, enclave)
        document = await enclave.nsm.attest(
            nonce=asked.challenge.server_nonce, user_data=asked.user_data, public_key=asked.key.public
        )
        assert await asked.offer(document) == "refused"
        assert len(world.leases()) == boots
        await trio.sleep(61)
    assert [lease["state"] for lease in world.leases()] == ["live"] * 3
