"""One image for the tests of a process: what differs between machines is beside it."""

import shutil
from pathlib import Path

import pytest

from tests.vm.images import make_image


@pytest.fixture(name="prepared", scope="session")
def fixture_prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an image and of the machine that it was made for, which has not run."""
    folder = tmp_path_factory.mktemp("prepared")
    make_image(folder)
    return folder


@pytest.fixture(name="image")
def fixture_image(prepared: Path, tmp_path: Path) -> Path:
    """An image, beside the folder of a machine that nobody else uses."""
    shutil.copytree(prepared, tmp_path / "own")
    return tmp_path / "own" / "booted.eif"
