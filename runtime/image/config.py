"""image.toml: how an enclave image is put together (config/image.toml is the commented example)."""

from dataclasses import dataclass
from typing import Annotated

from runtime.settings import NonEmpty, Pattern, Range


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """Who signs the image: PEM files. The certificate is what PCR 8 measures."""

    certificate: Annotated[str, NonEmpty()]
    key: Annotated[str, NonEmpty()]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """Paths are relative to the config file. `kernel` is a folder in the layout of nitro-cli's blobs."""

    version: Annotated[int, Range(1, 1)]
    image: Annotated[str, NonEmpty()]
    output: Annotated[str, Pattern(r".+\.eif", "the name of an .eif file")]
    kernel: Annotated[str, NonEmpty()]
    config: Annotated[str, NonEmpty()] = "enclave.toml"
    sign: Signing | None = None
