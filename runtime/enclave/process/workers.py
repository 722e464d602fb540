"""PID 1's side of the worker processes: starts them with inherited descriptors, answers what their role may ask, starts them again.

A listening socket stays open here, so a worker that dies costs its own connections and no other. What a worker says is a stranger's word.
"""

import errno
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import trio

from runtime.enclave.identity.nsm import Nsm, NsmError
from runtime.enclave.link import TicketUnavailable
from runtime.enclave.process.fork_server import Forked, ForkServer
from runtime.enclave.process.liveness import Liveness
from runtime.enclave.process.reaper import Reaper
from runtime.enclave.process.worker_policy import may_ask, may_say
from runtime.enclave.shortage import pause_after
from runtime.protocol.errors import Malformed
from runtime.protocol.framing import FrameDecoder
from runtime.protocol.link_values import JournalFields, Level
from runtime.protocol.nsm import decode_request
from runtime.protocol.worker_link import (
    WORKER_FRAME_MAX,
    Answer,
    Ask,
    Configure,
    Counted,
    DrainNow,
    Event,
    Failed,
    Finished,
    FromFirst,
    FromWorker,
    Ping,
    Pong,
    Probed,
    Released,
    Requests,
    Role,
    Started,
    Ticket,
    TicketWanted,
    decode_from_worker,
    encode,
)

RESTARTS = 10
RESTART_WINDOW = 60.0
_PAUSE_LEAST = 0.05
_PAUSE_MOST = 5.0
_LAST_SECONDS = 0.5
"""For a worker that has closed its link to end by itself."""
_CHUNK = 64 * 1024
_ASKED_MAX = 64
_UNSENT_MAX = 256
_ERRNO = {"nsm_stalled": errno.ETIMEDOUT, "nsm_timeout": errno.ETIMEDOUT, "nsm_busy": errno.EBUSY, "nsm_unavailable": errno.ENODEV}


class WorkerFailed(Exception):
    """A worker cannot do its work; `reason` is a stable code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{detail} [{reason}]")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What PID 1 does for its workers."""

    nsm: Nsm
    config_digest: bytes
    ticket: Callable[[], Awaitable[bytes]]
    note: Callable[[str, JournalFields, Level], None]
    reaper: Reaper
    fork_server: ForkServer


@dataclass(slots=True)
class Worker:
    """One worker process of one role, over all the times it is started. `configure` makes its first message anew each time."""

    role: Role
    services: Services
    configure: Callable[[], Configure]
    listeners: Sequence[trio.SocketListener] = ()
    sockets: Sequence[socket.socket] = ()
    on_probed: Callable[[str, bool], None] = lambda _process, _is_ready: None
    on_started: Callable[["Worker"], None] = lambda _worker: None
    on_requests: Callable[[bytes], object] = lambda _lines: None
    on_counted: Callable[[Mapping[str, int]], None] = lambda _numbers: None
    serving: trio.Event = field(default_factory=trio.Event)
    released: trio.Event = field(default_factory=trio.Event)
    finished: trio.Event = field(default_factory=trio.Event)
    release: Released | None = None
    failure: WorkerFailed | None = None
    _drain: DrainNow | None = None
    _process: Forked | None = None
    _ended: int | None = None
    _is_stuck: bool = False
    _out: trio.MemorySendChannel[bytes] | None = None
    _asked: int = 0
    _ticket_wanted: bool = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs the worker until it says that it has finished; started again when it dies. Raises `WorkerFailed`.

        `task_status` is told when it serves (for "provision" and "renew": when it has what it was started for).
        """
        ends: list[float] = []
        unstarted = 0
        started = _Once(task_status)
        while not self.finished.is_set():
            try:
                await self._run_once(started)
                unstarted = 0
            except OSError:  # nothing could be forked
                self._ended = None
                unstarted += 1
            if self.failure is not None:
                raise self.failure
            if self._drain is not None:
                self.finished.set()  # what it had in flight is lost, and nothing new is let in
            if self.finished.is_set():
                return
            self.services.note("worker.ended", self._how_it_ended(), "error")
            if self.role in ("provision", "renew") or not started.is_told:
                raise WorkerFailed(f"{self.role}_worker_lost", f"the {self.role} worker ended before it had done its work")
            if unstarted:  # it is not the worker's fault, and passes
                await trio.sleep(pause_after(unstarted))
                continue
            now = trio.current_time()
            ends = [*(end for end in ends if end > now - RESTART_WINDOW), now]
            if len(ends) > RESTARTS:
                raise WorkerFailed(f"{self.role}_worker_budget", f"the {self.role} worker ended {len(ends)} times")
            await trio.sleep(min(_PAUSE_MOST, _PAUSE_LEAST * 2 ** (len(ends) - 1)))

    def tell(self, message: FromFirst) -> None:
        """Sends a message to the process that runs now; one that does not take its messages is killed."""
        if self._out is None:
            return
        try:
            self._out.send_nowait(encode(message))
        except trio.WouldBlock:
            if self._process is not None:
                self._process.kill()
        except trio.BrokenResourceError:
            pass

    def drain(self, seconds: float) -> None:
        """Asks it to take nothing new and to finish what is in flight within `seconds`; the caller may close its listeners now.

        A process that dies from now on is not started again.
        """
        self._drain = DrainNow(int(seconds * 1000))
        if self._process is None:
            self.finished.set()
        self.tell(self._drain)

    async def _run_once(self, started: "_Once") -> None:
        self._is_stuck = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        with theirs:
            async with (
                trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as stream,
                self.services.reaper.owning(partial(self._fork, theirs)) as process,
            ):
                theirs.close()
                self._process = process
                try:
                    await self._serve(stream, started)
                    with trio.move_on_after(_LAST_SECONDS):  # so that its own status is known
                        await process.ended()
                finally:
                    self._out = self._process = None
                    process.kill()
                    with trio.CancelScope(shield=True):
                        self._ended = await process.wait()

    def _how_it_ended(self) -> JournalFields:
        match self._ended:
            case int(status) if self._is_stuck:
                return {"role": self.role, "reason": f"{self.role}_worker_stuck", "signal": -status}
            case None:
                return {"role": self.role, "reason": f"{self.role}_worker_unstarted"}
            case status if status < 0:
                return {"role": self.role, "reason": f"{self.role}_worker_killed", "signal": -status}
            case status:
                return {"role": self.role, "reason": f"{self.role}_worker_exited", "code": status}

    async def _fork(self, link: socket.socket) -> Forked:
        numbers = [*(listener.socket.fileno() for listener in self.listeners), *(each.fileno() for each in self.sockets)]
        descriptors = [os.dup(number) for number in numbers]  # a drain may close the listeners meanwhile
        try:
            return await self.services.fork_server.fork([link.fileno(), *descriptors])
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    async def _serve(self, stream: trio.SocketStream, started: "_Once") -> None:
        liveness = Liveness()
        self._out, unsent = trio.open_memory_channel[bytes](_UNSENT_MAX)
        self.tell(self.configure())
        if self._drain is not None:
            self.tell(self._drain)
        frames = FrameDecoder(limit=WORKER_FRAME_MAX)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_send_forever, stream, unsent)
                nursery.start_soon(self._end_when_stuck, liveness)
                while data := await stream.receive_some(_CHUNK):
                    frames.receive_data(bytes(data))
                    while (frame := frames.next_frame()) is not None:
                        message = decode_from_worker(frame[0])
                        if isinstance(message, Pong):
                            liveness.answered()
                        if isinstance(message, Started | Released):
                            started.tell()
                            self.serving.set()
                        self._take(message, nursery)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass  # it has ended, or is about to
        except* Malformed as group:
            self.services.note("worker.broken", {"role": self.role, "reason": _malformed(group).reason}, "error")
            if self._process is not None:
                self._process.kill()

    async def _end_when_stuck(self, liveness: Liveness) -> None:
        await liveness.until_stuck(lambda: self.tell(Ping()))
        if self._process is not None:
            self._is_stuck = True
            self._process.kill()

    def _take(self, message: FromWorker, nursery: trio.Nursery) -> None:
        if not may_say(self.role, message, is_draining=self._drain is not None):
            self.services.note("worker.refused", {"role": self.role}, "warning")
            raise Malformed(f"{type(message).__name__} is not for the role {self.role}")
        match message:
            case Pong():
                pass
            case Started():
                self.on_started(self)
            case Ask(number, request):
                if self._asked >= _ASKED_MAX:
                    self.tell(Answer(number, errno.EBUSY))
                else:
                    self._asked += 1
                    nursery.start_soon(self._ask, number, request)
            case TicketWanted():
                if self._ticket_wanted:
                    self.tell(Ticket(None))
                else:
                    self._ticket_wanted = True
                    nursery.start_soon(self._fetch_ticket)
            case Event(level, event, fields):
                self.services.note(event, fields, level)
            case Requests(lines):
                self.on_requests(lines)
            case Counted(numbers):
                self.on_counted(numbers)
            case Released():
                self.release = message
                self.released.set()
            case Failed(reason, detail):
                self.failure = WorkerFailed(reason, detail)
                nursery.cancel_scope.cancel()
            case Probed(process, is_ready):
                self.on_probed(process, is_ready)
            case Finished():
                self.finished.set()

    async def _ask(self, number: int, request: bytes) -> None:
        try:
            if not may_ask(self.role, decode_request(request), config_digest=self.services.config_digest):
                self.services.note("worker.refused", {"role": self.role}, "warning")
                self.tell(Answer(number, errno.EPERM))
                return
            self.tell(Answer(number, await self.services.nsm.carry(request)))
        except NsmError as error:
            self.tell(Answer(number, _ERRNO.get(error.reason, errno.EIO)))
        finally:
            self._asked -= 1

    async def _fetch_ticket(self) -> None:
        try:
            self.tell(Ticket(await self.services.ticket()))
        except TicketUnavailable:
            self.tell(Ticket(None))
        finally:
            self._ticket_wanted = False


def _malformed(group: BaseExceptionGroup[Malformed]) -> Malformed:
    """The first of a group, whose parts may be groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Malformed)
    return error


class _Once:
    """Tells the one who waits for the start, once."""

    def __init__(self, task_status: trio.TaskStatus[None]) -> None:
        self._task_status = task_status
        self.is_told = False

    def tell(self) -> None:
        if not self.is_told:
            self.is_told = True
            self._task_status.started()


async def _send_forever(stream: trio.SocketStream, unsent: trio.MemoryReceiveChannel[bytes]) -> None:
    async for data in unsent:
        await stream.send_all(data)
