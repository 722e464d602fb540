"""A bench for each test of the provisioner."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.prov import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()
