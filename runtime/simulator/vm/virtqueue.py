"""The memory that a guest shares with its devices, and the split virtqueues in it. What is read there was written by the guest.

Source: Virtual I/O Device (VIRTIO) 1.2, section 2.7. Neither indirect descriptors nor event indexes nor packed rings are offered. A guest
that breaks the rules gets `BadGuest`, and no more service. For hosts with a strong memory order (x86): Python has no barriers.
"""

import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

SIZE_MAX = 1024
"""Descriptors of a queue, at most; the specification allows 32768."""

CHAIN_MAX = 1 << 18
"""Bytes in one chain of descriptors, at most; Linux's vsock sends 64 KiB at a time."""

_DESCRIPTOR = struct.Struct("<QIHH")
_USED = struct.Struct("<II")
_NEXT, _WRITE = 1, 2


class BadGuest(Exception):
    """The guest broke the rules of the device; the message says which."""


@dataclass(frozen=True, slots=True)
class Region:
    """One part of the guest's memory: where it is for the guest, how long it is, and where for the machine that runs it."""

    guest: int
    size: int
    user: int
    offset: int


class GuestMemory:
    """The guest's memory. Takes the descriptors over and closes them."""

    def __init__(self, regions: Sequence[Region] = (), descriptors: Sequence[int] = ()) -> None:
        self._areas: list[tuple[Region, memoryview]] = []
        for region, descriptor in zip(regions, descriptors, strict=True):
            area = memoryview(mmap.mmap(descriptor, region.offset + region.size))[region.offset :]
            os.close(descriptor)
            self._areas.append((region, area))

    def at(self, address: int, length: int, *, of_user: bool = False) -> memoryview:
        """These bytes, by the guest's address or the machine's. Raises `BadGuest` unless all are in one region."""
        for region, area in self._areas:
            start = address - (region.user if of_user else region.guest)
            if start >= 0 and start + length <= region.size:
                return area[start : start + length]
        raise BadGuest(f"{length} bytes at {address:#x} are not in the guest's memory")


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain of descriptors: what the device may read, then what it may write."""

    head: int
    readable: tuple[memoryview, ...]
    writable: tuple[memoryview, ...]

    def read(self) -> bytes:
        """All that is to be read, copied once: the guest may change it at any time."""
        return b"".join(self.readable)

    @property
    def room(self) -> int:
        """Bytes that can be written."""
        return sum(map(len, self.writable))

    def write(self, data: bytes) -> int:
        """Writes as much of `data` as there is room for; how much that was."""
        done = 0
        for view in self.writable:
            part = data[done : done + len(view)]
            view[: len(part)] = part
            done += len(part)
        return done


class Virtqueue:
    """One split virtqueue, as vhost-user sets it up. `call` is the eventfd that interrupts the guest."""

    def __init__(self) -> None:
        self.size = 0
        self.next = 0
        self.is_enabled = False
        self.addresses = (0, 0, 0)  # descriptors, used ring, available ring
        self.call: int | None = None
        self._memory: GuestMemory | None = None

    def map(self, memory: GuestMemory) -> None:
        """Finds the rings. Raises `BadGuest`."""
        if not 0 < self.size <= SIZE_MAX or self.size & (self.size - 1):
            raise BadGuest(f"a queue of {self.size} descriptors")
        descriptors, used, available = self.addresses
        self._descriptors = memory.at(descriptors, _DESCRIPTOR.size * self.size, of_user=True)
        self._available = memory.at(available, 4 + 2 * self.size, of_user=True).cast("H")
        self._used = memory.at(used, 4 + _USED.size * self.size, of_user=True)
        # The guest polls it: a cast view stores both bytes at once, which struct does not.
        self._used_index = self._used[2:4].cast("H")
        self._memory = memory

    def unmap(self) -> None:
        """Lets go of the rings."""
        self._memory = None

    @property
    def is_mapped(self) -> bool:
        """Whether there are rings to look at."""
        return self._memory is not None

    @property
    def waiting(self) -> int:
        """Chains that the guest has made available and nobody has taken yet. Raises `BadGuest`."""
        if self._memory is None or not self.is_enabled:
            return 0
        count = (self._available[1] - self.next) & 0xFFFF
        if count > self.size:
            raise BadGuest(f"{count} chains in a queue of {self.size}")
        return count

    def take(self) -> Chain | None:
        """The next chain, or None. Raises `BadGuest`."""
        if not self.waiting:
            return None
        chain = self._chain(self._available[2 + self.next % self.size])
        self.next = (self.next + 1) & 0xFFFF
        return chain

    def give_back(self, *done: tuple[Chain, int]) -> None:
        """Gives chains back, each with the number of bytes written to it: all of them become visible at once."""
        if self._memory is None:
            return  # stopped meanwhile
        index = self._used_index[0]
        for number, (chain, length) in enumerate(done):
            _USED.pack_into(self._used, 4 + _USED.size * ((index + number) % self.size), chain.head, length)
        self._used_index[0] = (index + len(done)) & 0xFFFF
        # Whether the guest wants no interrupt is not looked at: without a barrier that may be read too early, and one would be lost.
        if self.call is not None:
            os.eventfd_write(self.call, 1)

    def _chain(self, head: int) -> Chain:
        assert self._memory is not None
        readable: list[memoryview] = []
        writable: list[memoryview] = []
        total, at = 0, head
        for _ in range(self.size):
            if at >= self.size:
                raise BadGuest(f"descriptor {at} of {self.size}")
            address, length, flags, following = _DESCRIPTOR.unpack_from(self._descriptors, _DESCRIPTOR.size * at)
            if flags & ~(_NEXT | _WRITE):
                raise BadGuest(f"a descriptor with flags {flags:#x}")
            if writable and not flags & _WRITE:
                raise BadGuest("something to be read behind what is to be written")
            if (total := total + length) > CHAIN_MAX:
                raise BadGuest(f"a chain of more than {CHAIN_MAX} bytes")
            (writable if flags & _WRITE else readable).append(self._memory.at(address, length))
            if not flags & _NEXT:
                return Chain(head, tuple(readable), tuple(writable))
            at = following
        raise BadGuest("a chain without an end")
