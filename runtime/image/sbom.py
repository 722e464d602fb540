"""The list of everything in an image: CycloneDX 1.5 as JSON, each file with its SHA-256. The same image gives the same bytes.

What our own runtime is made of comes from the list beside its folder (runtime/image/bundle); packages of the customer's image are read
from the databases of dpkg and apk, which are the image's own word.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from runtime.image.build import Image, Recipe, file_sizes
from runtime.image.contents import BadImage, Body, Read, Tree
from runtime.image.declared import json_object

_DATABASE_MAX = 64 << 20
_LIST_MAX = 16 << 20
_NAMESPACE = uuid.UUID("6f9b1a52-4a0c-5d0e-9f6e-7c2e0f6b9d11")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._~:-]{0,200}")


def write_sbom(image: Image, recipe: Recipe, bundle: Sequence[Any]) -> bytes:
    """The document; `bundle` are the components that `read_bundle_list` gave."""
    components: list[Any] = [
        {"type": "operating-system", "name": "linux", "version": recipe.kernel.version, "hashes": _hashes(recipe.kernel.image)},
        *bundle,
        *packages(recipe.root, recipe.read),
    ]
    for disk in image.ramdisks:
        files = [_file(path.decode("utf-8", "backslashreplace"), recipe.read, node.body) for path, node, _ in file_sizes(disk)]
        components.append({"type": "data", "name": f"ramdisk {disk.name}", "components": files})
    register = image.pcrs[0].hex()
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, register)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "firmware",
                "name": recipe.name,
                "version": str(recipe.epoch),
                "properties": [{"name": f"PCR{number}", "value": value.hex()} for number, value in sorted(image.pcrs.items())],
            }
        },
        "components": components,
    }
    return json.dumps(document, sort_keys=True, indent=1).encode() + b"\n"


def read_bundle_list(runtime: Path) -> list[Any]:
    """The packages of the runtime, from the list beside its folder; none without it. Raises `BadImage`."""
    path = runtime.with_name(runtime.name + ".cdx.json")
    if not path.exists():
        return []
    try:
        if path.stat().st_size > _LIST_MAX:
            raise BadImage(f"{path}: more than {_LIST_MAX} bytes")
        components = json_object(path.read_bytes(), str(path)).get("components")
    except OSError as error:
        raise BadImage(f"{path}: {error.strerror}") from None
    if not isinstance(components, list):
        raise BadImage(f"{path}: no list of components")
    return components


def packages(root: Tree, read: Read) -> list[dict[str, str]]:
    """What the image's package manager says is installed."""
    found = [
        *_listed(root, read, b"var/lib/dpkg/status", "Package", "Version", "pkg:deb"),
        *_listed(root, read, b"lib/apk/db/installed", "P", "V", "pkg:apk"),
    ]
    for name in sorted(root.names(b"var/lib/dpkg/status.d")):  # distroless
        found += _listed(root, read, b"var/lib/dpkg/status.d/" + name, "Package", "Version", "pkg:deb")
    return found


def _listed(root: Tree, read: Read, path: bytes, name_key: str, version_key: str, kind: str) -> Iterator[dict[str, str]]:
    node = root.get(root.resolve(path))
    if node is None or node.is_folder or node.body.size > _DATABASE_MAX:
        return
    text = b"".join(read(node.body)).decode("utf-8", "replace")
    for paragraph in text.split("\n\n"):
        fields = dict(line.split(":", 1) for line in paragraph.splitlines() if ":" in line and not line.startswith(" "))
        name, version = fields.get(name_key, "").strip(), fields.get(version_key, "").strip()
        if _PACKAGE.fullmatch(name) and _PACKAGE.fullmatch(version):
            yield {"type": "library", "name": name, "version": version, "purl": f"{kind}/{name}@{version.replace('+', '%2B')}"}


def _file(name: str, read: Read, body: Body) -> dict[str, Any]:
    digest = hashlib.sha256()
    for part in read(body):
        digest.update(part)
    return {"type": "file", "name": f"/{name}", "hashes": [{"alg": "SHA-256", "content": digest.hexdigest()}]}


def _hashes(data: bytes) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": hashlib.sha256(data).hexdigest()}]
