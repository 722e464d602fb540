"""The platform's heartbeat: one byte to the parent, echoed, by which it learns that the image has booted.

AWS's own init sends it, before anything else of an image runs; an image without that init owes it itself (aws-nitro-enclaves-sdk-bootstrap,
init.c; nitro-cli, enclave_proc). It must not come twice. The parent is believed in nothing: it can refuse, stall or answer nonsense, and
each has its own reason.
"""

import socket
import time
from collections.abc import Callable

from runtime.enclave.init.steps import StepFailed

PARENT_CID = 3
HEARTBEAT_PORT = 9000
HEARTBEAT = b"\xb7"
HEARTBEAT_SECONDS = 10.0

Connect = Callable[[float], socket.socket]
"""A connection to the parent's heartbeat port, made in at most so many seconds. Raises OSError."""


def connect_parent(seconds: float) -> socket.socket:
    """See `Connect`."""
    stream = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    try:
        stream.settimeout(seconds)
        stream.connect((PARENT_CID, HEARTBEAT_PORT))
    except OSError:
        stream.close()
        raise
    return stream


def send_heartbeat(connect: Connect = connect_parent, *, seconds: float = HEARTBEAT_SECONDS) -> bool:
    """The whole exchange, within `seconds`; True. Raises `StepFailed`; it is never tried again."""
    deadline = time.monotonic() + seconds
    try:
        stream = connect(seconds)
    except TimeoutError as error:
        raise StepFailed("heartbeat_timeout", f"no connection within {seconds:g} s") from error
    except OSError as error:
        raise StepFailed("heartbeat_unavailable", str(error)) from error
    try:
        with stream:
            stream.settimeout(_left(deadline))
            stream.sendall(HEARTBEAT)
            stream.settimeout(_left(deadline))
            answer = stream.recv(1)
    except TimeoutError as error:
        raise StepFailed("heartbeat_timeout", f"no answer within {seconds:g} s") from error
    except OSError as error:
        raise StepFailed("heartbeat_closed", str(error)) from error
    if not answer:
        raise StepFailed("heartbeat_closed", "the parent closed without an answer")
    if answer != HEARTBEAT:
        raise StepFailed("heartbeat_wrong", f"the parent answered 0x{answer.hex()}")
    return True


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
