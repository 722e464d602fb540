"""The Nitro Security Module as the enclave uses it: who this enclave is, its PCRs, and documents that prove both.

Runs in the supervisor, which alone may open /dev/nsm. The hypervisor behind the device is trusted; its answers are decoded strictly
all the same. The driver sleeps for up to 120 seconds, uninterruptibly, under one mutex for the whole machine: so calls are made one at
a time, in a worker thread, and one that does not return is left behind in the kernel, never joined by a second.
"""

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeAlias, TypeVar

import trio

from runtime.enclave.shortage import thread_is_wanted
from runtime.protocol.errors import Malformed, Refused
from runtime.protocol.nsm import (
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
    PcrDescription,
    PcrExtended,
    PcrLocked,
    PcrsLocked,
    Random,
    Request,
    Response,
    decode_response,
    encode_request,
)

R = TypeVar("R", bound=Response)

NSM_PATH = "/dev/nsm"
NSM_COMMAND = 0xC0200A00
"""`_IOWR(0x0A, 0, struct nsm_raw)`, Linux include/uapi/linux/nsm.h."""

DEADLINE = 5.0
WAITING_MAX = 128

_NSM_RAW = struct.Struct("=QQQQ")  # request address, request length, response address, response length

_REASONS = {
    errno.EMSGSIZE: "nsm_input_too_large",
    errno.ETIMEDOUT: "nsm_timeout",
    errno.ENODATA: "nsm_no_data",
    errno.EINTR: "nsm_interrupted",
    errno.ENOENT: "nsm_unavailable",
    errno.ENODEV: "nsm_unavailable",
    errno.ENXIO: "nsm_unavailable",
    errno.EACCES: "nsm_unavailable",
    errno.EPERM: "nsm_unavailable",
    errno.ECONNREFUSED: "nsm_unavailable",
}
"""Every other errno is "nsm_io"."""

Ioctl: TypeAlias = Callable[[int, bytearray], None]
"""(command, struct nsm_raw, which is updated in place); raises OSError, blocks."""


class NsmError(Exception):
    """The NSM did not do what was asked; `reason` is a stable code.

    `nsm_stalled`, `nsm_busy`, `nsm_timeout`, `nsm_interrupted`, `nsm_no_data`, `nsm_io`, `nsm_unavailable`: the device could not be
    used; `nsm_protocol`: its answer makes no sense; `nsm_document`: its document is none; `entropy_missing`: it gives no seed
    (entropy.py); else the device's own refusal (`NsmErrorCode.reason`). After `nsm_stalled`, `nsm_timeout`, `nsm_interrupted` and
    `nsm_io` it is unknown whether the command was carried out, so nothing here repeats one.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{detail} [{reason}]")
        self.reason = reason
        self.detail = detail


class NsmDevice(Protocol):
    """What carries one request to a security module and its response back."""

    @property
    def is_occupied(self) -> bool:
        """Whether a call whose caller has gone has not returned yet."""
        ...

    async def exchange(self, request: bytes) -> bytes:
        """One CBOR request, one CBOR response. Not to be called by two tasks at once.

        Waits first until an earlier call whose caller has gone returns. Raises OSError with the driver's errno. When cancelled, it
        returns at once and leaves its call in the device.
        """
        ...


class NitroDevice:
    """The real device. `ioctl` is the system call itself, which a test puts a kernel of its own under."""

    def __init__(self, ioctl: Ioctl | None = None) -> None:
        self._ioctl = ioctl or nsm_ioctl
        # One thread, and trio gives the token back only when it has really returned, abandoned or not.
        self._thread = trio.CapacityLimiter(1)

    @property
    def is_occupied(self) -> bool:
        """Whether a thread is in the kernel."""
        return self._thread.borrowed_tokens > 0

    async def exchange(self, request: bytes) -> bytes:
        """See `NsmDevice`."""
        with thread_is_wanted():
            return await trio.to_thread.run_sync(self._call, request, abandon_on_cancel=True, limiter=self._thread)

    def _call(self, request: bytes) -> bytes:
        """Runs in the thread, whose frame keeps both buffers alive for as long as the kernel may write to them."""
        sent = ctypes.create_string_buffer(request, len(request))
        received = ctypes.create_string_buffer(RESPONSE_MAX)
        message = bytearray(_NSM_RAW.pack(ctypes.addressof(sent), len(request), ctypes.addressof(received), RESPONSE_MAX))
        self._ioctl(NSM_COMMAND, message)
        _, _, _, length = _NSM_RAW.unpack(message)
        return received.raw[:length]


def nsm_ioctl(command: int, message: bytearray) -> None:
    """The system call on /dev/nsm. Opened for each call: it costs microseconds beside milliseconds and leaves no descriptor to inherit."""
    descriptor = os.open(NSM_PATH, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, command, message, True)
    finally:
        os.close(descriptor)


class Nsm:
    """The module's commands, one in flight at a time, first come first served. Every method raises `NsmError` and nothing else.

    A call waits at most `deadline` seconds for its turn (then `nsm_busy`; at once when `waiting_max` calls wait already) and at most
    `deadline` seconds for the answer (then `nsm_stalled`). Until a stalled call really returns, further ones fail at once with
    `nsm_stalled`. A caller that is cancelled leaves at once; the call behind it waits for the device to be done with its request.
    """

    def __init__(self, device: NsmDevice, *, deadline: float = DEADLINE, waiting_max: int = WAITING_MAX) -> None:
        self._device = device
        self._deadline = deadline
        self._waiting_max = waiting_max
        self._turn = trio.Lock()  # first in, first out
        self._stalled = False

    async def describe(self) -> NsmDescription:
        """The module: its id, which PCRs there are, which of them are locked."""
        return await self._call(DescribeNsm(), NsmDescription)

    async def describe_pcr(self, index: int) -> PcrDescription:
        """One PCR's lock and value."""
        return await self._call(DescribePcr(index=index), PcrDescription)

    async def extend_pcr(self, index: int, data: bytes) -> bytes:
        """The PCR's new value, SHA-384(old value || data)."""
        return (await self._call(ExtendPcr(index=index, data=data), PcrExtended)).value

    async def lock_pcr(self, index: int) -> None:
        """Locks one PCR for the rest of this boot; `nsm_read_only_index` when it is locked already."""
        await self._call(LockPcr(index=index), PcrLocked)

    async def lock_pcrs(self, count: int) -> None:
        """Locks the PCRs [0, count), locked ones among them or not."""
        await self._call(LockPcrs(count=count), PcrsLocked)

    async def random(self) -> bytes:
        """As many random bytes as the module gives at once: 256 today, 1 at the least."""
        return (await self._call(GetRandom(), Random)).random

    async def attest(self, *, nonce: bytes | None = None, user_data: bytes | None = None, public_key: bytes | None = None) -> bytes:
        """A fresh attestation document over every locked PCR; at most 1024 bytes in each field (`nsm_input_too_large`)."""
        return (await self._call(Attest(nonce=nonce, user_data=user_data, public_key=public_key), Attested)).document

    async def carry(self, request: bytes) -> bytes:
        """The response to a request that somebody else encoded and will decode, both CBOR."""
        return await self._exchange(request)

    async def _call(self, request: Request, expected: type[R]) -> R:
        try:
            response = decode_response(await self._exchange(encode_request(request)))
        except Refused as error:
            raise NsmError(error.reason, error.detail) from error
        except Malformed as error:
            raise NsmError("nsm_protocol", f"the answer to {type(request).__name__}: {error}") from error
        if isinstance(response, expected):
            return response
        if isinstance(response, Failure):
            raise NsmError(response.code.reason, f"{request} is refused")
        raise NsmError("nsm_protocol", f"{type(response).__name__} in answer to {type(request).__name__}")

    async def _exchange(self, encoded: bytes) -> bytes:
        async with self._one_at_a_time():
            if self._stalled and self._device.is_occupied:
                raise NsmError("nsm_stalled", "an earlier call has not returned")
            self._stalled = False
            with trio.move_on_after(self._deadline):
                try:
                    return await self._device.exchange(encoded)
                except OSError as error:
                    raise NsmError(_REASONS.get(error.errno or 0, "nsm_io"), str(error)) from error
            self._stalled = True
            raise NsmError("nsm_stalled", f"no answer within {self._deadline:g} s")

    @asynccontextmanager
    async def _one_at_a_time(self) -> AsyncGenerator[None]:
        if self._turn.statistics().tasks_waiting >= self._waiting_max:
            raise NsmError("nsm_busy", f"{self._waiting_max} calls are waiting")
        with trio.move_on_after(self._deadline) as waiting:
            await self._turn.acquire()
        if waiting.cancelled_caught:
            raise NsmError("nsm_busy", f"no turn within {self._deadline:g} s")
        try:
            yield
        finally:
            self._turn.release()
