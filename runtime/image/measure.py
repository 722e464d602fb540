"""What an enclave of an image will measure: read off a finished file, or off what it is to be put together from.

Runs on the build machine and wherever a policy is written. The file may come from anybody: it is read strictly, and what it says of
itself (its metadata, its signer's names) is reported and never believed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime.image.eif import METADATA_MAX, Eif, SectionKind
from runtime.image.signature import SIGNER_PCR, ImageSignature, read_signature
from runtime.protocol.errors import Malformed
from runtime.protocol.measurements import image_registers

HASH_ALGORITHM = "Sha384 { ... }"
"""The words in which nitro-cli names it."""

_ALGORITHMS = {"secp256r1": "ecdsa-with-SHA256", "secp384r1": "ecdsa-with-SHA384", "secp521r1": "ecdsa-with-SHA512"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The registers that the file alone decides, by number: 0, 1, 2, and 8 when it is signed."""

    eif: Eif
    pcrs: Mapping[int, bytes]
    signature: ImageSignature | None
    is_signature_valid: bool
    metadata: Mapping[str, Any]


def measure(eif: Eif) -> Measured:
    """Measures an image. Raises `Malformed` for a signature section or metadata that cannot be read."""
    kernel, command_line = eif.one_of(SectionKind.KERNEL), eif.one_of(SectionKind.COMMAND_LINE)
    assert kernel is not None
    assert command_line is not None
    pcrs = image_registers(kernel, command_line, eif.all_of(SectionKind.RAMDISK))
    section = eif.one_of(SectionKind.SIGNATURE)
    signature = None if section is None else read_signature(bytes(section))
    if signature is not None:
        pcrs[SIGNER_PCR] = signature.signer_register()
    return Measured(
        eif=eif,
        pcrs=pcrs,
        signature=signature,
        is_signature_valid=signature is not None and signature.is_of(pcrs[0]),
        metadata=_metadata(eif),
    )


def described(measured: Measured) -> dict[str, Any]:
    """What `nitro-cli describe-eif` prints of the same file, in its names and its order."""
    metadata = measured.metadata
    build = metadata.get("BuildMetadata")
    measurements = {f"PCR{number}": value.hex() for number, value in sorted(measured.pcrs.items())}
    answer: dict[str, Any] = {
        "EifVersion": measured.eif.version,
        "Measurements": {"HashAlgorithm": HASH_ALGORITHM, **measurements},
        "IsSigned": measured.signature is not None,
    }
    if measured.signature is not None:
        answer["SigningCertificate"] = _certificate(measured.signature)
    answer["CheckCRC"] = True  # a file with a wrong one is not described
    if measured.signature is not None:
        answer["SignatureCheck"] = measured.is_signature_valid
    answer["ImageName"] = metadata.get("ImageName")
    answer["ImageVersion"] = metadata.get("ImageVersion")
    answer["Metadata"] = {
        **(build if isinstance(build, dict) else {}),
        "DockerInfo": metadata.get("DockerInfo"),
        **({} if metadata.get("CustomMetadata") is None else {"CustomMetadata": metadata["CustomMetadata"]}),
    }
    return answer


def _metadata(eif: Eif) -> dict[str, Any]:
    section = eif.one_of(SectionKind.METADATA)
    if section is None:
        return {}
    try:
        value = json.loads(bytes(section[:METADATA_MAX]))
    except (ValueError, RecursionError):
        raise Malformed("the metadata is no JSON") from None
    if not isinstance(value, dict):
        raise Malformed("the metadata is no JSON object")
    return value


def _certificate(signature: ImageSignature) -> dict[str, Any]:
    certificate = signature.certificate
    return {
        "IssuerName": {attribute.rfc4514_attribute_name: str(attribute.value) for attribute in certificate.issuer},
        "Algorithm": _ALGORITHMS[signature.key.curve.name],
        "NotBefore": certificate.not_valid_before_utc.strftime("%b %e %H:%M:%S %Y GMT"),
        "NotAfter": certificate.not_valid_after_utc.strftime("%b %e %H:%M:%S %Y GMT"),
        "Signature": certificate.signature.hex(),
    }
