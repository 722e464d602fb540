"""PROV/1 from the inside: prove what this enclave is, and receive what only this boot of it can open. At the boot, and to renew it.

The provisioner is reached through the parent, which carries the bytes of a TLS connection that ends here and there; it may cut, delay
and lie. What it can cause is another attempt or a failed boot with a reason, never a release to somebody else.
"""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count

import h11
import trio
from cryptography import x509

from runtime.enclave.config import EnclaveConfig, Provisioner
from runtime.enclave.identity.certificates import TlsKey, make_tls_key
from runtime.enclave.identity.clock import TrustedClock, read_clock
from runtime.enclave.identity.nsm import Nsm
from runtime.enclave.identity.registers import commit_key
from runtime.enclave.link import TicketUnavailable
from runtime.enclave.traffic.egress import EgressRefused
from runtime.net.http import HttpClient
from runtime.net.tls import TlsStream, client_context
from runtime.protocol.binding import EXPORTER_SIZE, PROV_EXPORTER_LABEL
from runtime.protocol.bundle import Lease
from runtime.protocol.cbor import MESSAGE_MAX
from runtime.protocol.errors import Malformed, ProtocolError, Refused
from runtime.protocol.handshake import EnclaveClaims, EnclaveHandshake, Released
from runtime.protocol.link_values import JournalFields
from runtime.protocol.messages import CONTENT_TYPE, Outcome, ProvError
from runtime.protocol.release import RELEASE_MAX
from runtime.protocol.sealing import SealingKey, Suite, generate_key

RESENDS = 3
STEP_SECONDS = 15.0
_PAUSE_LEAST = 0.5
_PAUSE_MOST = 15.0
_ASKED_PAUSE_MOST = 60.0  # whatever the provisioner asks for: a boot is not held for days by one answer
_PREFERRED = (Suite.X_WING, Suite.X25519, Suite.P256)

Connect = Callable[[str, int], Awaitable[trio.SocketStream]]
Note = Callable[[str, JournalFields], None]
"""(event, fields): what goes to the boot journal."""


class ProvisioningFailed(Exception):
    """No secrets, and no use in trying again. `reason` is a stable code for the journal."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{detail} [{reason}]")
        self.reason = reason
        self.detail = detail


class _TryAgain(Exception):
    """This attempt is lost and the next may succeed. `status` is of HTTP, where an answer came."""

    def __init__(self, reason: str, detail: str, *, after: float = 0.0, status: int | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.after = after
        self.status = status


_CONNECTION_LOST = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, h11.RemoteProtocolError)
_NOT_OURS = frozenset({"tls_certificate", "tls_name"})
"""TLS errors after which no attempt will be better: somebody else answers in the provisioner's place."""
_RETRIED_CODES = frozenset({"busy", "challenge_gone", "internal"})
_ANSWER_LOST = frozenset({"connection_lost", "provisioner_unintelligible"})
"""After these nobody knows whether the provisioner got the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioned:
    """What came of it. `confirm` must be sent once the enclave is live, or has failed to become so."""

    released: Released
    tls_key: TlsKey | None
    clock: TrustedClock
    confirm: Callable[[Outcome], Awaitable[None]]


@dataclass(slots=True)
class _Keys:
    """Made once for all attempts: in a boot, PCR 17 commits to the first."""

    sealing: SealingKey | None = None
    tls: TlsKey | None = None


def _roots(provisioner: Provisioner) -> tuple[x509.Certificate, ...]:
    try:
        return provisioner.ca.read()
    except ValueError as error:
        raise ProvisioningFailed("config_invalid", f"provisioner.ca: {error}") from None


class Provisioning:
    """The attempts of one boot, or of one renewal, of `lease`, whose keys are new ones and in no register.

    `connect` opens a connection through the parent, `next_ticket` asks it for a ticket, `note` journals.

    Raises `ProvisioningFailed` when the pinned roots are no certificates.
    """

    def __init__(
        self,
        config: EnclaveConfig,
        *,
        boot_id: bytes,
        runtime: str,
        nsm: Nsm,
        connect: Connect,
        next_ticket: Callable[[], Awaitable[bytes]],
        note: Note,
        lease: Lease | None = None,
    ) -> None:
        assert config.provisioner is not None
        self._provisioner: Provisioner = config.provisioner
        self._roots = _roots(config.provisioner)
        self._names = config.tls.names
        self._nsm = nsm
        self._connect = connect
        self._next_ticket = next_ticket
        self._note = note
        self._lease = lease
        self._keys = _Keys()
        self._claims = EnclaveClaims(
            enclave_id=config.enclave.id,
            epoch=config.enclave.epoch,
            config_digest=config.digest,
            boot_id=boot_id,
            runtime=runtime,
            root_keys=config.provisioner.keys,
        )

    async def run(self) -> Provisioned:
        """Raises `ProvisioningFailed` when the provisioner or the enclave's own checks refuse, or after the last attempt; `NsmError`."""
        pause = _PAUSE_LEAST
        for attempt in count(1):
            try:
                return await self._attempt()
            except _TryAgain as error:
                status: JournalFields = {} if error.status is None else {"status": error.status}
                self._note("attempt_failed", {"attempt": attempt, "reason": error.reason, **status})
                if attempt == self._provisioner.attempts:
                    raise ProvisioningFailed(error.reason, f"{error.detail}, at the last of {attempt} attempts") from error
                await trio.sleep(max(pause, error.after))
                pause = min(2 * pause, _PAUSE_MOST)
            except ProtocolError as error:
                raise ProvisioningFailed(error.reason, error.detail) from error
        raise AssertionError("unreachable")

    async def _attempt(self) -> Provisioned:
        clock = await read_clock(self._nsm, trio.current_time)
        handshake = EnclaveHandshake(self._claims, self._lease)
        ticket = await self._fetch_ticket()
        link = await self._open(clock)
        try:
            hello = handshake.hello(ticket=ticket, client_nonce=secrets.token_bytes(32), suites=self._suites())
            challenge = handshake.receive_challenge(await link.post("hello", hello, MESSAGE_MAX))
            self._note("challenged", {"suite": Suite(challenge.suite).name, "provisioner": challenge.provisioner_id[:100]})
            key, tls_key = await self._make_keys(Suite(challenge.suite))
            asked = handshake.commit(
                hpke_public_key=key.public,
                channel=link.channel(challenge.challenge_id) if self._provisioner.channel == "exporter" else None,
                certificate_request=tls_key.request if tls_key is not None else None,
            )
            document = await self._nsm.attest(nonce=asked.nonce, user_data=asked.user_data, public_key=asked.public_key)
            evidence = handshake.evidence(document)
            link, release = await self._exchange_evidence(link, evidence, clock)
            fresh = await read_clock(self._nsm, trio.current_time)
            last = 0 if self._lease is None else self._lease.bundle_version
            released = handshake.receive_release(release, key=key, now=int(fresh.unix_now()), last_bundle_version=last)
        except BaseException:
            await trio.aclose_forcefully(link.stream)
            raise
        self._note("opened", {"lease": released.header.lease_id, "bundle": released.bundle.version})

        async def confirm(outcome: Outcome) -> None:
            await self._confirm(link, handshake.confirm(outcome), fresh)

        return Provisioned(released=released, tls_key=tls_key, clock=fresh, confirm=confirm)

    async def _fetch_ticket(self) -> bytes:
        try:
            with trio.fail_after(STEP_SECONDS):
                return await self._next_ticket()
        except (TicketUnavailable, trio.TooSlowError) as error:
            raise _TryAgain("ticket_unavailable", "the parent has no ticket") from error

    def _suites(self) -> tuple[Suite, ...]:
        return _PREFERRED if self._keys.sealing is None else (self._keys.sealing.suite,)

    async def _make_keys(self, suite: Suite) -> tuple[SealingKey, TlsKey | None]:
        if self._keys.sealing is None:
            if self._names:
                self._keys.tls = make_tls_key(self._names)
            sealing = generate_key(suite)
            if self._lease is None:
                await commit_key(self._nsm, sealing.public)
            self._keys.sealing = sealing
        return self._keys.sealing, self._keys.tls

    async def _exchange_evidence(self, link: "_Link", evidence: bytes, clock: TrustedClock) -> tuple["_Link", bytes]:
        """Sends the evidence; when the answer is lost, the same bytes again on a new connection, which earn the same release.

        Gives the connection that the answer came on; any other is closed.
        """
        resend = 0
        while True:
            try:
                return link, await link.post("evidence", evidence, RELEASE_MAX)
            except BaseException as error:
                await trio.aclose_forcefully(link.stream)
                if resend and isinstance(error, Refused):
                    # The first message may never have arrived, and this one is bound to a connection that is gone.
                    raise _TryAgain(error.reason, error.detail) from error
                resend += 1
                if not isinstance(error, _TryAgain) or error.reason not in _ANSWER_LOST or resend > RESENDS:
                    raise
                reason = error.reason
            self._note("evidence_resent", {"resend": resend, "reason": reason})
            await trio.sleep(resend * _PAUSE_LEAST)
            link = await self._open(clock)

    async def _confirm(self, link: "_Link", message: bytes, clock: TrustedClock) -> None:
        """Best effort: a lease that is not confirmed counts until its end all the same, and what was released stays usable."""
        for resend in range(RESENDS):
            try:
                if resend:
                    await trio.sleep(_PAUSE_LEAST)
                    link = await self._open(clock)
                async with link.stream:
                    await link.post("confirm", message, MESSAGE_MAX)
                    return
            except (_TryAgain, ProtocolError) as error:
                self._note("confirm_failed", {"reason": error.reason})

    async def _open(self, clock: TrustedClock) -> "_Link":
        host, port = self._provisioner.url.host, self._provisioner.url.port
        context = client_context(self._roots, now=clock.now(), min_version="1.3")
        try:
            with trio.fail_after(STEP_SECONDS):
                stream = await self._connect(host, port)
                return _Link(await TlsStream.connect(stream, context, server_name=host), host)
        except (*_CONNECTION_LOST, EgressRefused, ProtocolError) as error:
            reason = error.reason if isinstance(error, ProtocolError) else "provisioner_unreachable"
            if reason in _NOT_OURS:
                raise
            raise _TryAgain(reason, f"{host}:{port}: {error}") from error


class _Link:
    """One TLS connection to the provisioner."""

    def __init__(self, stream: TlsStream, host: str) -> None:
        self.stream = stream
        self._http = HttpClient(stream, host=host)

    def channel(self, challenge_id: bytes) -> bytes:
        """What binds the evidence to this connection: 32 bytes."""
        return self.stream.exporter(PROV_EXPORTER_LABEL, challenge_id, EXPORTER_SIZE)

    async def post(self, step: str, message: bytes, max_body: int) -> bytes:
        """The body of a good answer. Raises `_TryAgain`, or `Refused` with the provisioner's code as reason ("provisioner_refused" …).

        Only an answer in the protocol's own form is the provisioner's word. Anything else, whatever its status, is of something in
        between, which may be gone the next time.
        """
        if not self._http.is_reusable:
            raise _TryAgain("connection_lost", f"{step}: the provisioner has ended the connection")
        try:
            with trio.fail_after(STEP_SECONDS):
                response = await self._http.request(
                    "POST", f"/prov/1/{step}", headers=[("content-type", CONTENT_TYPE)], body=message, max_body=max_body
                )
        except _CONNECTION_LOST as error:
            raise _TryAgain("connection_lost", f"{step}: {error}") from error
        except Malformed as error:
            if error.reason != "http_malformed":
                raise _TryAgain("provisioner_unintelligible", f"{step}: {error}") from error
            raise _TryAgain("connection_lost", f"{step}: {error}") from error  # an end before the answer's own is one of these
        is_ours = response.header("content-type") == CONTENT_TYPE
        if (response.status == 204 and step == "confirm") or (response.status == 200 and is_ours):
            return response.body
        try:
            if not is_ours:
                raise Malformed("a page of something in between")
            answer = ProvError.decode(response.body)
        except Malformed as error:
            detail = f"{step}: status {response.status} without a PROV/1 message"
            raise _TryAgain("provisioner_unintelligible", detail, status=response.status) from error
        reason = f"provisioner_{answer.code}"
        if answer.code in _RETRIED_CODES:
            raise _TryAgain(reason, f"{step} answered {answer.code}", after=min(float(answer.retry_after or 0), _ASKED_PAUSE_MOST))
        raise Refused(reason, f"{step} answered {answer.code}, request {answer.request_id}")
