"""The config of an image that is to be booted by `enclave vm`: with the provisioner of its folder in place of its own.

An image cannot be changed when it has been built, and where its provisioner is and which keys it has are measured. So the folder comes
first.
"""

import socket
import tomllib
from pathlib import Path

from runtime.net.clock import utc_now
from runtime.simulator.layout import Layout
from runtime.simulator.workspace import localized, prepare_provisioner


def prepare(folder: Path, source: Path) -> Path:
    """Makes the folder unless it is there, and writes the config; its path. Raises `SettingsError`, TOMLDecodeError or OSError."""
    layout = Layout(folder.resolve())
    port = _port_of(layout) or _free_port()
    prepare_provisioner(layout, now=utc_now(), port=port)
    baked, _ = localized(layout, source, provisioner=f"https://localhost:{port}", names=())
    path = layout.enclave / "enclave.toml"
    path.write_bytes(baked)
    return path


def _port_of(layout: Layout) -> int:
    """The port that images of this folder know already, or 0."""
    path = layout.provisioner / "provisioner.toml"
    if not path.exists():
        return 0
    return int(str(tomllib.loads(path.read_text())["listen"]).rpartition(":")[2])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
