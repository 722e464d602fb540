"""Reference values: the measurements that a verifier is prepared to believe, as a list of alternatives.

Two forms are read. Ours is TOML, with as many measurements as wanted:

    version = 1
    [[measurement]]
    name = "payments-prod 1.4.0"
    epoch = 7
    config_digest = "<96 hex digits>"
    pcrs = { 0 = "<96 hex digits>", 2 = "<96 hex digits>" }

The other is the JSON that `nitro-cli build-enclave` and `describe-eif` print, `{"Measurements": {"HashAlgorithm": ..., "PCR0": ...}}`, or
only the inner object. A list without a measurement and a measurement without a register are errors: nothing expected never means that
anything goes.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Final, Literal

from runtime.protocol.digest import SIZE as DIGEST_SIZE
from runtime.protocol.document import PCR_COUNT, PCR_SIZES
from runtime.settings import NonEmpty, Parse, Range, SettingsError, load

REFERENCE_MAX = 1024 * 1024
"""Characters of a reference file."""

_NAME_MAX = 200
_EPOCH_MAX = 2**32 - 1
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+")
_REGISTER = re.compile(r"PCR(0|[1-9][0-9]?)")
_INDEX = re.compile(r"0|[1-9][0-9]?")


class ReferenceInvalid(ValueError):
    """The text is not reference values; `str()` says where and why."""


class AnyMeasurement(Enum):
    """The type of `ANY_MEASUREMENT` alone."""

    ANY_MEASUREMENT = "any measurement"


ANY_MEASUREMENT: Final = AnyMeasurement.ANY_MEASUREMENT
"""In place of reference values: the caller says in so many words that it will believe any code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One build: every register in `pcrs` must be in the document with exactly this value. Raises `ValueError` when it names none.

    `epoch` is the release's number, `config_digest` the SHA-384 of the baked enclave.toml where the builder recorded it; both are
    for callers that keep floors and predict PCR16.
    """

    name: str
    pcrs: Mapping[int, bytes]
    epoch: int = 0
    config_digest: bytes | None = None

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= _NAME_MAX or not self.name.isprintable():
            raise ValueError(f"a measurement needs a printable name of 1 to {_NAME_MAX} characters")
        if not self.pcrs:
            raise ValueError(f"the measurement {self.name!r} names no register")
        for index, value in self.pcrs.items():
            if not 0 <= index < PCR_COUNT:
                raise ValueError(f"the measurement {self.name!r} names PCR{index}, which does not exist")
            if len(value) not in PCR_SIZES:
                raise ValueError(f"PCR{index} of the measurement {self.name!r} is not of 32, 48 or 64 bytes")
        if self.config_digest is not None and len(self.config_digest) != DIGEST_SIZE:
            raise ValueError(f"the config digest of the measurement {self.name!r} is not of {DIGEST_SIZE} bytes")

    def differing(self, pcrs: Mapping[int, bytes]) -> tuple[int, ...]:
        """The registers in which a document's `pcrs` differ from this measurement, or which they lack."""
        return tuple(index for index, value in sorted(self.pcrs.items()) if pcrs.get(index) != value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceValues:
    """Measurements of which a document must match one. Raises `ValueError` when there is none, or a name stands twice."""

    measurements: tuple[Measurement, ...]

    def __post_init__(self) -> None:
        if not self.measurements:
            raise ValueError("reference values without a measurement")
        names = [measurement.name for measurement in self.measurements]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two measurements named {name!r}")

    def match(self, pcrs: Mapping[int, bytes]) -> Measurement | None:
        """The first measurement that the registers keep."""
        return next((measurement for measurement in self.measurements if not measurement.differing(pcrs)), None)

    def nearest(self, pcrs: Mapping[int, bytes]) -> Measurement:
        """The measurement that differs in the fewest registers, to explain a refusal with."""
        return min(self.measurements, key=lambda measurement: len(measurement.differing(pcrs)))


def parse_reference(text: str, *, source: str = "reference") -> ReferenceValues:
    """Reads either form. `source` names the text in errors and is the name of nitro-cli's one measurement. Raises `ReferenceInvalid`."""
    if len(text) > REFERENCE_MAX:
        raise ReferenceInvalid(f"{source}: more than {REFERENCE_MAX} characters")
    try:
        return _parse_json(text, source) if text.lstrip().startswith("{") else _parse_toml(text, source)
    except SettingsError as error:
        raise ReferenceInvalid(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise ReferenceInvalid(f"{source}: {error}") from None


def write_reference(values: ReferenceValues) -> str:
    """`values` as TOML; `parse_reference` gives them back."""
    lines = ["version = 1"]
    for measurement in values.measurements:
        registers = ", ".join(f'{index} = "{value.hex()}"' for index, value in sorted(measurement.pcrs.items()))
        # A JSON string of printable characters is a TOML basic string too.
        lines += ["", "[[measurement]]", f"name = {json.dumps(measurement.name, ensure_ascii=False)}"]
        lines.append(f"epoch = {measurement.epoch}")
        if measurement.config_digest is not None:
            lines.append(f'config_digest = "{measurement.config_digest.hex()}"')
        lines.append(f"pcrs = {{ {registers} }}")
    return "\n".join(lines) + "\n"


def _unhex(text: str) -> bytes:
    if not _HEX.fullmatch(text):
        raise ValueError("must be hex digits in pairs")
    return bytes.fromhex(text)


_HexText = Annotated[bytes, Parse(_unhex)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _MeasurementTable:
    name: str
    pcrs: Annotated[dict[str, _HexText], NonEmpty()]
    epoch: Annotated[int, Range(0, _EPOCH_MAX)] = 0
    config_digest: _HexText | None = None

    def measurement(self) -> Measurement:
        registers: dict[int, bytes] = {}
        for index, value in self.pcrs.items():
            if not _INDEX.fullmatch(index):
                raise ValueError(f"the measurement {self.name!r} has a register {index!r:.40}; registers are 0 to {PCR_COUNT - 1}")
            registers[int(index)] = value
        return Measurement(name=self.name, pcrs=registers, epoch=self.epoch, config_digest=self.config_digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ReferenceFile:
    version: Literal[1]
    measurement: Annotated[tuple[_MeasurementTable, ...], NonEmpty()]


def _parse_toml(text: str, source: str) -> ReferenceValues:
    file = load(_ReferenceFile, text, source)
    return ReferenceValues(measurements=tuple(table.measurement() for table in file.measurement))


def _parse_json(text: str, source: str) -> ReferenceValues:
    printed = json.loads(text, object_pairs_hook=_without_duplicates)
    entries = printed.get("Measurements", printed)
    if type(entries) is not dict:
        raise ValueError("Measurements must be an object")
    registers: dict[int, bytes] = {}
    for key, value in entries.items():
        register = _REGISTER.fullmatch(key)
        if register and isinstance(value, str):
            registers[int(register[1])] = _unhex(value)
        elif key != "HashAlgorithm":
            raise ValueError(f"{key!r:.40} is not PCR0 to PCR{PCR_COUNT - 1} in hex")
    return ReferenceValues(measurements=(Measurement(name=source, pcrs=registers),))


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a key stands twice")
    return entries
