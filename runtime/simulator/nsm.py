"""A simulated Nitro Security Module: its PCRs, its refusals, its documents, and the end of the socket that stands for /dev/nsm.

Runs as a process of its own beside one simulated enclave, never in an image. `SimulatedNsm` is the hypervisor's end and decides
everything; `serve_nsm` and `SimulatedDevice` stand for the driver between it and the enclave. Documents have the genuine form and real
signatures under a development root (runtime/simulator/pki.py). The enclave's requests are untrusted here as they are there.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha384
from itertools import count
from typing import assert_never

import trio
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from runtime.net.serve import serve
from runtime.protocol.cose import sig_structure
from runtime.protocol.document import PROTECTED, encode_document, encode_payload
from runtime.protocol.errors import Malformed
from runtime.protocol.nsm import (
    FIRST_OWN_PCR,
    PCR_COUNT,
    REQUEST_MAX,
    Attest,
    Attested,
    DescribeNsm,
    DescribePcr,
    ExtendPcr,
    Failure,
    GetRandom,
    LockPcr,
    LockPcrs,
    NsmDescription,
    NsmErrorCode,
    PcrDescription,
    PcrExtended,
    PcrLocked,
    PcrsLocked,
    Random,
    Request,
    Response,
    decode_request,
    encode_response,
)
from runtime.simulator.device import Frames, SimulatedDevice
from runtime.simulator.pki import DEFAULT_REGION, Authority, SigningChain

__all__ = ["SimulatedDevice"]
"""The other end, of device.py; the rest is below."""

BOOT_PCRS = frozenset({0, 1, 2, 3, 4, 8})
"""What the platform measures: image, kernel, application, role, instance, signing certificate. The other PCRs below 16 stay zero."""
DEBUG_PCRS = frozenset({0, 1, 2, 8})
"""What is zero in an enclave that was started in debug mode."""

_PCR_SIZE = 48
_RANDOM_SIZE = 256
_CONNECTIONS_MAX = 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What is wrong with the module: set `SimulatedNsm.faults` to another value at any time.

    Seen through `serve_nsm`: `delay` in seconds before each answer; `stall`: no request is answered until this event; `errno`:
    every call fails so; `drop_every` n: every n-th connected request is lost with its connection. In the module itself:
    `clock_skew` is added to the timestamps of documents; `refused` names kinds of requests that get an error.
    """

    delay: float = 0.0
    stall: trio.Event | None = None
    errno: int | None = None
    drop_every: int | None = None
    clock_skew: timedelta = timedelta()
    refused: Mapping[type[Request], NsmErrorCode] = field(default_factory=dict)


def make_module_id(instance_id: str) -> str:
    """The module id of a new enclave on the instance `instance_id` (`i-<17 hex>`)."""
    return f"{instance_id}-enc{secrets.token_hex(8)}"


class SimulatedNsm:
    """One enclave's module, from its boot on. `handle` may be given any bytes.

    `pcrs` holds what the platform measured (48 bytes each, of `BOOT_PCRS`); PCR 4 follows from the instance id in `module_id` unless
    it is given. `debug` zeroes what a debug enclave has zero. `now` is the module's clock.
    """

    def __init__(
        self,
        root: Authority,
        *,
        module_id: str,
        pcrs: Mapping[int, bytes],
        now: Callable[[], datetime],
        region: str = DEFAULT_REGION,
        debug: bool = False,
    ) -> None:
        if not BOOT_PCRS.issuperset(pcrs) or any(len(value) != _PCR_SIZE for value in pcrs.values()):
            raise ValueError(f"the PCRs measured at boot are {sorted(BOOT_PCRS)}, of {_PCR_SIZE} bytes each")
        instance_id, _, _ = module_id.partition("-enc")
        zero = bytes(_PCR_SIZE)
        measured = {4: _extended(zero, instance_id.encode())} | dict(pcrs)
        if debug:
            measured |= dict.fromkeys(DEBUG_PCRS, zero)
        self.module_id = module_id
        self.faults = Faults()
        self._pcrs = [measured.get(index, zero) for index in range(PCR_COUNT)]
        self._locked = set(range(FIRST_OWN_PCR))
        self._chain = SigningChain(root, module_id=module_id, region=region)
        self._now = now

    def handle(self, request: bytes) -> bytes:
        """The response to one request, both CBOR. Never raises for what `request` holds."""
        return encode_response(self._respond(request))

    def _respond(self, data: bytes) -> Response:
        if len(data) > REQUEST_MAX:
            return Failure(code=NsmErrorCode.INPUT_TOO_LARGE)
        try:
            request = decode_request(data)
        except Malformed:
            return Failure(code=NsmErrorCode.INVALID_OPERATION)
        if code := self.faults.refused.get(type(request)):
            return Failure(code=code)
        match request:
            case DescribePcr(index=index) | ExtendPcr(index=index) | LockPcr(index=index) if index >= PCR_COUNT:
                return Failure(code=NsmErrorCode.INVALID_INDEX)
            case LockPcrs(count=end) if end > PCR_COUNT:
                return Failure(code=NsmErrorCode.INVALID_INDEX)
            case ExtendPcr(index=index) | LockPcr(index=index) if index in self._locked:
                return Failure(code=NsmErrorCode.READ_ONLY_INDEX)
            case DescribeNsm():
                return self._description()
            case DescribePcr(index=index):
                return PcrDescription(locked=index in self._locked, value=self._pcrs[index])
            case ExtendPcr(index=index, data=extension):
                self._pcrs[index] = _extended(self._pcrs[index], extension)
                return PcrExtended(value=self._pcrs[index])
            case LockPcr(index=index):
                self._locked.add(index)
                return PcrLocked()
            case LockPcrs(count=end):
                self._locked.update(range(end))
                return PcrsLocked()
            case GetRandom():
                return Random(random=secrets.token_bytes(_RANDOM_SIZE))
            case Attest():
                return Attested(document=self._document(request))
            case _:
                assert_never(request)

    def _description(self) -> NsmDescription:
        return NsmDescription(
            version=(1, 0, 0),
            module_id=self.module_id,
            max_pcrs=PCR_COUNT,
            locked_pcrs=frozenset(self._locked),
            digest="SHA384",
        )

    def _document(self, asked: Attest) -> bytes:
        now = self._now()
        credentials = self._chain.current(now)
        payload = encode_payload(
            module_id=self.module_id,
            timestamp_ms=(now + self.faults.clock_skew - _EPOCH) // timedelta(milliseconds=1),
            pcrs={index: self._pcrs[index] for index in sorted(self._locked)},
            certificate=credentials.leaf.der,
            cabundle=credentials.cabundle,
            public_key=asked.public_key,
            user_data=asked.user_data,
            nonce=asked.nonce,
        )
        r, s = decode_dss_signature(credentials.leaf.key.sign(sig_structure(PROTECTED, b"", payload), ECDSA(SHA384())))
        return encode_document(payload, r.to_bytes(48, "big") + s.to_bytes(48, "big"))


def _extended(value: bytes, data: bytes) -> bytes:
    return sha384(value + data).digest()


async def serve_nsm(
    nsm: SimulatedNsm,
    listener: trio.abc.Listener[trio.SocketStream],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answers requests on `listener`, which it owns, one at a time over all connections as the driver does, until cancelled.

    The PCRs are those of `nsm`: an enclave that connects again finds them as it left them.
    """
    mutex = trio.Lock()
    numbers = count(1)

    async def answer(stream: trio.SocketStream) -> None:
        frames = Frames(stream)
        while received := await frames.receive(REQUEST_MAX):
            async with mutex:
                if nsm.faults.stall is not None:
                    await nsm.faults.stall.wait()
                await trio.sleep(nsm.faults.delay)
                faults = nsm.faults
                if faults.drop_every and next(numbers) % faults.drop_every == 0:
                    return
                response = b"" if faults.errno else nsm.handle(received.body)
            await frames.send(response, failure=faults.errno)

    await serve(listener, answer, limit=_CONNECTIONS_MAX, task_status=task_status)
