"""client.toml: what a client believes, so that it need not be said on every command line (config/client.toml is the example)."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from runtime.settings import Range, decode, load


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """Files are relative to the config file. `root` None is AWS's; `ca` None leaves the certificate to the evidence."""

    version: Annotated[int, Range(1, 1)]
    url: str = ""
    reference: str | None = None
    root: str | None = None
    ca: str | None = None
    allow_debug: bool = False


def read_client_config(path: str) -> ClientConfig:
    """The config of a file, its own files' names made absolute. Raises `SettingsError` or OSError."""
    config = load(ClientConfig, decode(Path(path).read_bytes(), path), path)
    here = Path(path).resolve().parent

    def beside(name: str | None) -> str | None:
        return None if name is None else str(here / name)

    return replace(config, reference=beside(config.reference), root=beside(config.root), ca=beside(config.ca))
