"""The connection to the customer process that serves the requests of one client connection, one after the other.

What the process answers is parsed by h11 and never passed on unparsed. A connection is used again only if it is certainly between two
messages: bytes that nobody asked for would otherwise become the answer to somebody's next request.
"""

import select

import h11
import trio

from runtime.net.endpoint import Endpoint, connect
from runtime.net.serve import CONNECTION_ERRORS

READ = 64 * 1024
_HEAD_MAX = 64 * 1024


class UpstreamFailed(Exception):
    """The customer process did not answer as HTTP asks. `code` is stable; `is_timeout` tells 504 from 502."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{detail} [{code}]")
        self.code = code

    @property
    def is_timeout(self) -> bool:
        """Whether a deadline passed."""
        return self.code.endswith("_timeout")


class Upstream:
    """One connection. `was_used` says that it served a request before; `answered`, that bytes came back for the present one."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_MAX)
        self._wait: trio.CancelScope | None = None
        self._patience = 0.0
        self._is_sending = False
        self.was_used = False
        self.answered = False

    @classmethod
    async def open(cls, endpoint: Endpoint, timeout: float) -> "Upstream":
        """A new connection. Raises `UpstreamFailed`."""
        try:
            with trio.fail_after(timeout):
                return cls(await connect(endpoint))
        except trio.TooSlowError:
            raise UpstreamFailed("connect_timeout", f"no connection within {timeout:g} seconds") from None
        except OSError as error:
            raise UpstreamFailed("connect_failed", str(error)) from None

    async def aclose(self) -> None:
        """Ends the connection, whatever state it is in."""
        await trio.aclose_forcefully(self._stream)

    def is_reusable(self) -> bool:
        """Whether the last exchange ended cleanly on both sides and nothing has come since, neither bytes nor an end."""
        connection = self._connection
        if self._is_sending or connection.trailing_data[0]:
            return False
        if (connection.our_state, connection.their_state) != (h11.DONE, h11.DONE):
            return False
        poll = select.poll()
        poll.register(self._stream.socket.fileno(), select.POLLIN)
        return not poll.poll(0)

    def start_again(self) -> None:
        """Makes a reusable connection ready for its next request."""
        self._connection.start_next_cycle()
        self.was_used = True
        self.answered = False

    def encode(self, event: h11.Event) -> bytes:
        """The bytes of a part of the request."""
        return self._connection.send(event) or b""

    async def send(self, data: bytes) -> None:
        """Sends bytes of the request; every send that gets through gives the answer its whole time again. Raises `UpstreamFailed`."""
        # Stays set when this is cancelled or fails: what follows half a message would be taken for its other half.
        self._is_sending = True
        try:
            await self._stream.send_all(data)
        except CONNECTION_ERRORS as error:
            raise UpstreamFailed("upstream_closed", str(error)) from None
        self._is_sending = False
        if self._wait is not None:
            self._wait.deadline = trio.current_time() + self._patience

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """The next part of the answer that has arrived. Raises `UpstreamFailed`."""
        try:
            return self._connection.next_event()
        except h11.RemoteProtocolError as error:
            raise UpstreamFailed("upstream_malformed" if self.answered else "upstream_closed", str(error)) from None

    async def receive(self, timeout: float) -> None:
        """Waits for more of the answer, at most `timeout` seconds after the request last moved on. Raises `UpstreamFailed`."""
        self._patience = timeout
        data = b""
        with trio.move_on_after(timeout) as wait:
            self._wait = wait
            try:
                data = await self._stream.receive_some(READ)
            except CONNECTION_ERRORS as error:
                raise UpstreamFailed("upstream_closed", str(error)) from None
            finally:
                self._wait = None
        if wait.cancelled_caught:
            raise UpstreamFailed("upstream_timeout", f"nothing within {timeout:g} seconds")
        self.answered = self.answered or bool(data)
        self._connection.receive_data(data)
