"""The world of a scenario, and its time."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import trio

from tests.scenarios.waiting import skip_waiting
from tests.scenarios.world import START, World, open_world


@pytest.fixture(name="world")
async def fixture_world(mock_clock: trio.testing.MockClock, tmp_path: Path) -> AsyncIterator[World]:
    """A world whose time passes only where somebody waits for it. The test itself must take `mock_clock` too: so pytest-trio wants it."""
    assert trio.lowlevel.current_clock() is mock_clock
    async with open_world(tmp_path, lambda: START + timedelta(seconds=mock_clock.current_time())) as world:
        world.nursery.start_soon(skip_waiting, mock_clock)
        yield world
