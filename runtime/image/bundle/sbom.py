"""The list of what is in a bundle: CycloneDX 1.5 as JSON, packages with their licences, and below each its files with their digests.

A wheel may say itself what was compiled into it (PEP 770), as cryptography does of OpenSSL and of Rust's libraries: that is repeated.

The same bundle gives the same bytes, so neither time nor serial number is in it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from runtime.image.bundle.packages import Package


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of the bundle, and the name of the package that it is from."""

    data: bytes
    package: str
    is_executable: bool = False


def sbom(files: Mapping[str, File], packages: Iterable[Package]) -> bytes:
    """The document."""
    components = [
        {
            "type": "library",
            "bom-ref": (reference := _purl(package)),
            "purl": reference,
            "name": package.name,
            "version": package.version,
            "hashes": [{"alg": "SHA-256", "content": package.sha256}] if package.sha256 else [],
            "licenses": [
                {"license": {"name": place.rpartition("/")[2], "text": {"content": text}}}
                for place, text in sorted(package.licences.items())
            ],
            "components": [
                *(_file(place, file) for place, file in sorted(files.items()) if file.package == package.name),
                *(_part(part) for document in package.lists for part in document["components"]),
            ],
        }
        for package in sorted(packages, key=_purl)
    ]
    document = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": components}
    return json.dumps(document, sort_keys=True, indent=1).encode() + b"\n"


def _file(place: str, file: File) -> dict[str, object]:
    return {
        "type": "file",
        "name": f"/{place}",
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(file.data).hexdigest()}],
    }


def _part(component: Mapping[str, Any]) -> dict[str, Any]:
    """What a package says was compiled into it: its name, its version and where it is from, as it is said."""
    return {key: component[key] for key in ("type", "name", "version", "purl", "licenses") if key in component}


def _purl(package: Package) -> str:
    match package.kind:
        case "deb":
            return f"pkg:deb/debian/{package.name}@{package.version.replace('+', '%2B')}?arch=amd64"
        case kind:
            return f"pkg:{kind}/{package.name}@{package.version}"
