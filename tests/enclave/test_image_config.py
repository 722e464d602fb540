"""`enclave/image.json`, as the builder bakes it, and whom a process runs as because of it."""

import json
import os
from typing import Any

import pytest

from runtime.enclave.platform import ImageConfig, read_image_config
from tests.enclave.process.running import config_of, output


def read(**fields: Any) -> ImageConfig:
    return read_image_config(json.dumps(fields).encode(), root=None)


def test_what_the_image_says_is_read_word_for_word() -> None:
    image = read(Entrypoint=["/a", "b c"], Cmd=["$d"], Env=["A=1=2"], WorkingDir="/w", User="10:20", Groups=[30])
    assert image.command == ("/a", "b c", "$d")
    assert image.environment["A"] == "1=2"
    assert (image.directory, image.user, image.groups) == ("/w", (10, 20), (30,))
    assert (read().command, read().user, read().groups, read(User=None, Env=None).directory) == ((), None, (), "/")


@pytest.mark.parametrize(
    "fields",
    [
        {"Entrypoint": "/bin/sh -c x"},
        {"Cmd": [1]},
        {"Env": ["A"]},
        {"User": "app"},
        {"User": "65510"},
        {"Groups": [65510]},
        {"Groups": ["1"]},
    ],
)
def test_what_is_no_image_config_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read(**fields)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(
    ("keys", "image", "expected"),
    [
        ("", ImageConfig(user=(10, 20), groups=(30,)), "10 20 20 30"),
        ("", ImageConfig(), "65534 65534 65534"),
        ('user = "11:21"', ImageConfig(user=(10, 20), groups=(30,)), "11 21 21"),
        ("groups = [31]", ImageConfig(user=(10, 20), groups=(30,)), "10 20 20 31"),
    ],
)
async def test_a_process_runs_as_its_table_says_else_as_the_image_does_else_as_nobody(
    keys: str, image: ImageConfig, expected: str
) -> None:
    lines, _ = await output(config_of(["/bin/sh", "-c", "echo $(id -u) $(id -g) $(id -G)"], keys), image=image)
    assert lines == [expected]
