"""A simulated Nitro Security Module: its PCRs, its refusals, its documents, and the socket that stands for /dev/nsm.

Runs as a process of its own beside one simulated enclave, never in an image. `SimulatedNsm` is the hypervisor's end and decides
everything; `serve_nsm` and `SimulatedDevice` stand for the driver between it and the enclave. Documents have the genuine form and real
signatures under a development root (runtime/simulator/pki.py). The enclave's requests are untrusted here as they are there.

On the socket each request is one frame, 4 bytes of length (big-endian) and its CBOR; so is each response, or it is 4 bytes with the
top bit set and the driver's errno below it.
"""

import errno
import os
import secrets
import select
from collections.abc import Callable, Mapping
from contextlib import suppress
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
    RESPONSE_MAX,
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
from runtime.simulator.pki import DEFAULT_REGION, Authority, SigningChain

BOOT_PCRS = frozenset({0, 1, 2, 3, 4, 8})
"""What the platform measures: image, kernel, application, role, instance, signing certificate. The other PCRs below 16 stay zero."""
DEBUG_PCRS = frozenset({0, 1, 2, 8})
"""What is zero in an enclave that was started in debug mode."""

_PCR_SIZE = 48
_RANDOM_SIZE = 256
_CONNECTIONS_MAX = 16
_READ_SIZE = 4096
_ERRNO = 1 << 31
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
        frames = _Frames(stream)
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


class SimulatedDevice(trio.abc.AsyncResource):
    """The device that `serve_nsm` serves at the socket `path`, as an `NsmDevice`: what the driver is to the real one.

    Connects when it is first used and again after the connection was lost; the call that lost it fails with EIO.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._frames: _Frames | None = None
        self._is_owed = False

    @property
    def is_occupied(self) -> bool:
        """Whether the answer to a caller that has gone is still to come."""
        return self._frames is not None and self._is_owed and not self._frames.is_readable

    async def exchange(self, request: bytes) -> bytes:
        """See `NsmDevice`."""
        if len(request) > REQUEST_MAX:
            raise _os_error(errno.EMSGSIZE)
        if self._frames and self._is_owed:
            with suppress(OSError):
                await self._answer(self._frames)
        if self._frames is None:
            self._frames = _Frames(await trio.open_unix_socket(self._path))
        self._is_owed = True
        try:
            await self._frames.send(request)
        except trio.Cancelled:
            self._drop()  # a part of the frame may be on its way
            raise
        return await self._answer(self._frames)

    async def aclose(self) -> None:
        """Closes the connection."""
        self._drop()
        await trio.lowlevel.checkpoint()

    async def _answer(self, frames: "_Frames") -> bytes:
        received = await frames.receive(RESPONSE_MAX)
        self._is_owed = False
        if received is None:
            self._drop()
            raise _os_error(errno.EIO)
        if received.failure:
            raise _os_error(received.failure)
        return received.body

    def _drop(self) -> None:
        if self._frames:
            self._frames.close()
        self._frames = None
        self._is_owed = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    body: bytes
    failure: int | None


class _Frames:
    """The frames of one connection, in both directions. What came of a frame before its reader was cancelled is kept for the next."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    @property
    def is_readable(self) -> bool:
        """Whether bytes, or the end, wait in the socket."""
        poll = select.poll()
        poll.register(self._stream.socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    async def receive(self, most: int) -> _Frame | None:
        """The next frame; None when the connection has ended, or makes no sense: a body over `most` bytes."""
        while True:
            end = self._end()
            if end is not None and end > 4 + most:
                return None
            if end is not None and end <= len(self._buffer):
                break
            try:
                data = await self._stream.receive_some(_READ_SIZE)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._buffer += data
        head, body = int.from_bytes(self._buffer[:4], "big"), bytes(self._buffer[4:end])
        del self._buffer[:end]
        return _Frame(body=body, failure=head & ~_ERRNO if head & _ERRNO else None)

    async def send(self, body: bytes, *, failure: int | None = None) -> None:
        """Sends one frame. That the connection has ended shows in the next `receive`."""
        head = _ERRNO | failure if failure else len(body)
        with suppress(trio.BrokenResourceError):
            await self._stream.send_all(head.to_bytes(4, "big") + body)

    def close(self) -> None:
        """Closes the socket."""
        self._stream.socket.close()

    def _end(self) -> int | None:
        """Where the first frame in the buffer ends, None before its head is there."""
        if len(self._buffer) < 4:
            return None
        head = int.from_bytes(self._buffer[:4], "big")
        return 4 if head & _ERRNO else 4 + head


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
