"""image.toml: how an enclave image is put together (config/image.toml is the commented example)."""

from dataclasses import dataclass
from typing import Annotated, Literal

from runtime.settings import NonEmpty, Pattern, Range


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """Who signs the image: a PEM certificate, which is what PCR 8 measures, and its key or a command that signs with it."""

    certificate: Annotated[str, NonEmpty()]
    key: Annotated[str, NonEmpty()] | None = None
    command: Annotated[str, NonEmpty()] | None = None

    def __post_init__(self) -> None:
        if (self.key is None) == (self.command is None):
            raise ValueError("must have exactly one of key and command")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """Paths are relative to the config file. `kernel` is a folder in the layout of nitro-cli's blobs, `runtime` one of `enclave bundle`."""

    version: Annotated[int, Range(1, 1)]
    image: Annotated[str, NonEmpty()]
    output: Annotated[str, Pattern(r".+\.eif", "the name of an .eif file")]
    kernel: Annotated[str, NonEmpty()]
    config: Annotated[str, NonEmpty()] = "enclave.toml"
    runtime: Annotated[str, NonEmpty()] | None = None
    init: Literal["own", "aws"] = "own"
    compress: bool = False
    allow_keys: tuple[str, ...] = ()
    drop_xattrs: tuple[str, ...] = ()
    sign: Signing | None = None
