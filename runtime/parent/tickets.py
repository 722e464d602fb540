"""Buys tickets for the enclave from the provisioner, with the parent's client certificate (protocol/README.md section 1).

A ticket alone opens nothing: what earns secrets is the measured image. The provisioner is trusted to be the one that the CA certifies.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import trio
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates

from runtime.net.clock import utc_now
from runtime.net.endpoint import Tcp, connect
from runtime.net.http import HttpClient
from runtime.net.serve import CONNECTION_ERRORS
from runtime.net.tls import PrivateKey, TlsIdentity, TlsStream, client_context
from runtime.parent.config import Provisioner
from runtime.protocol.errors import ProtocolError
from runtime.protocol.messages import CONTENT_TYPE, ProvError, TicketReply, TicketRequest

_ANSWER_MAX = 4096
T = TypeVar("T")


class NoTicket(Exception):
    """The provisioner gave none. `reason` is its code, "unreachable" or the reason of the protocol's error; `detail` is for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{detail} [{reason}]")
        self.reason = reason
        self.detail = detail


class ProvisionerTickets:
    """One request over a connection of its own for each ticket. The files are read at once: ValueError, OSError."""

    def __init__(
        self,
        provisioner: Provisioner,
        request: TicketRequest,
        *,
        now: Callable[[], datetime] = utc_now,
        dial: Callable[[], Awaitable[trio.SocketStream]] | None = None,
    ) -> None:
        self._request = request
        self._provisioner = provisioner
        self._now = now
        self._dial = dial or self._connect
        self._roots = _read(provisioner.ca, load_pem_x509_certificates)
        chain = _read(provisioner.certificate, load_pem_x509_certificates)
        self._identity = _read(provisioner.key, lambda pem: TlsIdentity(names=(), chain=tuple(chain), key=_private_key(pem)))

    async def fetch(self) -> TicketReply:
        """A fresh ticket within the configured deadline. Raises `NoTicket`."""
        try:
            with trio.fail_after(self._provisioner.deadline):
                return await self._fetch()
        except ProtocolError as error:
            raise NoTicket(error.reason, str(error)) from None
        except CONNECTION_ERRORS as error:
            raise NoTicket("unreachable", str(error) or type(error).__name__) from None

    async def _connect(self) -> trio.SocketStream:
        return await connect(Tcp(self._provisioner.url.host, self._provisioner.url.port))

    async def _fetch(self) -> TicketReply:
        url = self._provisioner.url
        context = client_context(self._roots, now=self._now(), identity=self._identity, min_version="1.3")
        async with await self._dial() as stream, await TlsStream.connect(stream, context, server_name=url.host) as tls:
            response = await HttpClient(tls, host=url.authority).request(
                "POST",
                "/prov/1/ticket",
                headers=(("content-type", CONTENT_TYPE),),
                body=self._request.encode(),
                max_body=_ANSWER_MAX,
            )
        if response.status == 200:
            return TicketReply.decode(response.body)
        if response.header("content-type") == CONTENT_TYPE:
            error = ProvError.decode(response.body)
            raise NoTicket(error.code, f"the provisioner answered {response.status}, request {error.request_id}")
        raise NoTicket("unexpected_answer", f"the provisioner answered {response.status}")


def _read(path: Path, load: Callable[[bytes], T]) -> T:
    try:
        return load(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{path}: {error}") from None


def _private_key(pem: bytes) -> PrivateKey:
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise ValueError("the key is encrypted") from None
    if not isinstance(key, PrivateKey):
        raise ValueError("the key must be an EC, Ed25519 or RSA key")
    return key
