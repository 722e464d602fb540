"""A provisioner's folder as an operator has it, and the commands that work on it, run as a user meets them."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from runtime.cli import main
from runtime.provisioner.store import Store
from tests.support.certificates import make_ca
from tests.support.prov import NOW

CONFIG = """version = 1
id = "provisioner-1"
directory = "state"
roots = ["aws"]
listen = "tcp:127.0.0.1:0"
server_names = ["localhost"]
"""
SECRET = b"correct horse battery staple"


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a command left: exit status and both outputs."""

    status: int
    out: str
    err: str

    @property
    def refusal(self) -> str:
        """The one line of a command that was refused for what the user wrote."""
        assert (self.status, self.out) == (2, "")
        assert self.err.count("\n") == 1
        return self.err.strip()


class Folder:
    """provisioner.toml, an image's measurements, a parent's certificate and a secret. `run` takes words after `enclave`."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self._capsys = capsys
        self.config = self.write("provisioner.toml", CONFIG.encode())
        self.reference = self.write("reference.json", b'{"PCR0": "%s"}' % (b"01" * 48))
        parent = make_ca("parents", NOW).issue(("parent",), client=True).chain[0]
        self.parent = self.write("parent.pem", parent.public_bytes(Encoding.PEM))
        self.secret = self.write("secret.txt", SECRET + b"\n")
        (path / "state").mkdir(exist_ok=True)

    def write(self, name: str, content: bytes) -> str:
        file = self.path / name
        file.write_bytes(content)
        return str(file)

    def run(self, *words: str) -> Ran:
        self._capsys.readouterr()
        try:
            status = main(words)
        except SystemExit as stopped:
            status = stopped.code if isinstance(stopped.code, int) else 1
        printed = self._capsys.readouterr()
        return Ran(status=status, out=printed.out, err=printed.err)

    def registry(self, *words: str) -> Ran:
        return self.run("registry", "-c", self.config, *words)

    def add(self, name: str, *words: str) -> Ran:
        return self.registry("add", name, "--reference", self.reference, *words)

    def audit(self, *words: str) -> Ran:
        return self.run("audit", "-c", self.config, *words)

    def store(self) -> Store:
        """The database itself, for the caller to close."""
        return Store(self.path / "state" / "store.db")
