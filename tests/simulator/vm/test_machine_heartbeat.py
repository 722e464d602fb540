"""The parent's end of the heartbeat of a virtual machine, whose guest may send anything or go away."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from runtime.net.endpoint import Unix
from runtime.simulator.vm import vm


@pytest.mark.parametrize(("sent", "answer"), [(b"\xb7", b"\xb7"), (b"\xb8", b""), (b"", b"")])
async def test_the_right_byte_alone_is_echoed_and_told(tmp_path: Path, sent: bytes, answer: bytes) -> None:
    shown: list[str] = []
    endpoint = Unix(str(tmp_path / "port"))
    layout = SimpleNamespace(parent_port=lambda _: endpoint)
    simulation = SimpleNamespace(layout=layout, show=lambda event, *_, **__: shown.append(event))
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(vm._answer_heartbeat, cast("Any", simulation))
            async with await trio.open_unix_socket(endpoint.path) as guest:
                if sent:
                    await guest.send_all(sent)
                await guest.send_eof()
                assert await guest.receive_some() == answer
    assert shown == (["machine.heartbeat"] if answer else [])


async def test_a_guest_that_is_gone_before_the_echo_ends_no_simulation(tmp_path: Path) -> None:
    endpoint = Unix(str(tmp_path / "port"))
    simulation = SimpleNamespace(layout=SimpleNamespace(parent_port=lambda _: endpoint), show=lambda *_, **__: None)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(vm._answer_heartbeat, cast("Any", simulation))
            guest = await trio.open_unix_socket(endpoint.path)
            await guest.send_all(b"\xb7")
            await guest.aclose()
