"""What the kernel refuses inside: a connection or a datagram to the address of a name on a port that nobody listens on.

Runs in PID 1, which alone may see packets. No listener sees such an attempt, but the kernel's own answer to it passes over loopback: a TCP
reset, an ICMP message "port unreachable". A filter in the kernel lets those from 127.64.0.0/10 through, cut to a fixed length, and two
numbers are read behind headers that the kernel has written. They go on to the egress worker, which records them; nothing is decided by
them.
"""

import ctypes
import errno
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

import trio

from runtime.protocol.link_values import JournalFields, Level

BATCH = 64
PAUSE = 0.1
"""Seconds, in which so many attempts are looked at: of a flood, which costs PID 1 little so, more are not seen."""

RECORD = 7
"""Bytes: the address, the port, and 1 for a datagram."""

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_ETH_P_IP = 0x0800
_BUFFER = 64 * 1024
_SIZE = 60 + 8 + 60 + 4
"""The longest IPv4 header, ICMP, the longest header inside and its ports: of TCP only the first header and ports are read."""

_WORD, _BYTE, _AND, _EQUAL, _RETURN = 0x20, 0x30, 0x54, 0x15, 0x06  # BPF_LD | BPF_W or B | BPF_ABS; BPF_ALU | BPF_AND; ..
# BPF_LDX | BPF_B | BPF_MSH: the length of the IPv4 header; BPF_LD | BPF_B or W | BPF_IND: so far from its end
_HEADER, _BEHIND, _WORD_BEHIND = 0xB1, 0x50, 0x40
_FILTER = (
    (_BYTE, 0, 0, 0),
    (_AND, 0, 0, 0xF0),
    (_EQUAL, 0, 17, 0x40),  # IPv4
    (_WORD, 0, 0, 12),
    (_AND, 0, 0, 0xFFC00000),
    (_EQUAL, 0, 14, 0x7F400000),  # from 127.64.0.0/10
    (_HEADER, 0, 0, 0),
    (_BYTE, 0, 0, 9),
    (_EQUAL, 0, 5, socket.IPPROTO_TCP),
    (_BEHIND, 0, 0, 13),
    (_AND, 0, 0, 0x04),
    (_EQUAL, 0, 8, 0x04),  # RST
    (_WORD_BEHIND, 0, 0, 4),
    (
        _EQUAL,
        5,
        6,
        0,
    ),  # of a connection that never was: its number is 0 (RFC 9293 section 3.10.7.1), those of others are not looked at
    (_EQUAL, 0, 5, socket.IPPROTO_ICMP),
    (_BEHIND, 0, 0, 0),
    (_EQUAL, 0, 3, 3),  # destination unreachable:
    (_BEHIND, 0, 0, 1),
    (_EQUAL, 0, 1, 3),  # port
    (_RETURN, 0, 0, _SIZE),
    (_RETURN, 0, 0, 0),
)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def open_watch() -> socket.socket:
    """A socket that receives such answers and nothing else. Raises OSError where the kernel has none, or for want of rights."""
    watching = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)  # no protocol: nothing comes before there is a filter
    try:
        code = b"".join(struct.pack("=HBBI", *step) for step in _FILTER)
        watching.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(_Program(len(_FILTER), code)))
        watching.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        watching.setblocking(False)
        watching.bind(("lo", _ETH_P_IP))
    except BaseException:
        watching.close()
        raise
    return watching


def watched(nursery: trio.Nursery, note: Callable[[str, JournalFields, Level], None]) -> socket.socket:
    """Watches from now on; gives the worker's end of a pair, on which each attempt is one `RECORD`. Nothing comes where it cannot be."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    try:
        nursery.start_soon(_watch, open_watch(), ours)
    except OSError as error:
        note("egress.unwatched", {"errno": errno.errorcode.get(error.errno or 0, "")}, "warning")
        ours.close()
    return theirs


async def _watch(watching: socket.socket, worker: socket.socket) -> None:
    with watching, worker:
        left, until = BATCH, 0.0
        while True:
            await trio.lowlevel.wait_readable(watching)
            if trio.current_time() >= until:
                left, until = BATCH, trio.current_time() + PAUSE
            with suppress(BlockingIOError):  # nothing more is there, or the worker takes nothing: then it is not recorded
                while left:
                    left -= 1
                    worker.send(_record(watching.recv(_SIZE)))
            if not left:
                await trio.sleep_until(until)


def _record(answer: bytes) -> bytes:
    """An IPv4 header may have options, those of the packet that it answers."""
    behind = 4 * (answer[0] & 15)
    is_datagram = answer[9] == socket.IPPROTO_ICMP
    if is_datagram:  # the header inside, and there the second port
        behind += 8
        behind += 4 * (answer[behind] & 15) + 2
    return answer[12:16] + answer[behind : behind + 2].ljust(2, b"\0") + bytes([is_datagram])
