"""What a caller of ioctl(2) on /dev/nsm can see of Linux's driver (drivers/misc/nsm.c), with any hypervisor below it."""

import ctypes
import errno
import os
import struct
import threading
from collections.abc import Callable

REQUEST_MAX = 0x1000
RESPONSE_MAX = 0x3000


class FakeKernel:
    """`ioctl` reads the struct, and the memory at the addresses in it, as a kernel would, and blocks its thread while it is stalled."""

    def __init__(self, hypervisor: Callable[[bytes], bytes]) -> None:
        self.failure: int | None = None
        self.most_threads = 0
        self.calls = 0
        self.entered = threading.Event()
        self._hypervisor = hypervisor
        self._count = threading.Lock()
        self._threads = 0
        self._mutex = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()

    def stall(self) -> None:
        """From now on no call returns."""
        self._flowing.clear()

    def release(self) -> None:
        """Everything that was stalled goes on."""
        self._flowing.set()

    def ioctl(self, command: int, message: bytearray) -> None:
        """The system call; raises OSError."""
        with self._count:
            self.calls += 1
            self._threads += 1
            self.most_threads = max(self.most_threads, self._threads)
        self.entered.set()
        try:
            with self._mutex:
                self._ioctl(command, message)
        finally:
            with self._count:
                self._threads -= 1

    def _ioctl(self, command: int, message: bytearray) -> None:
        if command != 0xC0200A00:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        request_address, request_size, response_address, capacity = struct.unpack("=4Q", message)
        if request_size > REQUEST_MAX:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        request = ctypes.string_at(request_address, request_size)
        self._flowing.wait()
        if self.failure:
            raise OSError(self.failure, os.strerror(self.failure))
        response = self._hypervisor(request)
        copied = min(len(response), capacity, RESPONSE_MAX)
        ctypes.memmove(response_address, response, copied)
        struct.pack_into("=Q", message, 24, copied)
