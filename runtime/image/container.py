"""Container images as they are stored: an OCI layout, or what `docker save` writes. Which of their files are the layers, in order.

Whoever made the image wrote all of it: every file is found by its digest or checked against one, and there is one image for the
platform or none. Sources: OCI, *Image Layout Specification* and *Image Manifest Specification*; Moby, *Docker Image Specification v1.2*.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from runtime.image.archive import Files
from runtime.image.compressed import UNPACKED_MAX, unpack
from runtime.image.contents import BadImage, Body, Tree
from runtime.image.declared import CONFIG_MAX, Declared, ImageFile, json_object, read_image_file, sha256_of
from runtime.image.layers import apply_layer
from runtime.image.spool import Spool

_INDEX_MAX = 4 << 20
_MANIFESTS_MAX = 256  # of an index and all that it leads to
_NAME_MAX = 255
_DEPTH_MAX = 4
_LAYERS_MAX = 512
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_LAYERS = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)

Progress = Callable[[str], None]
_Stored = tuple[Body, str, str | None]
"""A file with a layer, its name for errors, its digest where the image says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """One file of layers: `digest` of it as it is stored, where the image says it; `diff_id` of what is in it."""

    body: Body
    name: str
    digest: str | None
    diff_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One image among the files: its layers, the lowest first."""

    file: ImageFile
    layers: tuple[_Layer, ...]
    digest: str


def flatten(container: Container, files: Files, tree: Tree, spool: Spool, progress: Progress) -> Declared:
    """Puts the layers over each other, each checked against its digests; what the image declares. Raises `BadImage`."""
    left = UNPACKED_MAX
    for number, layer in enumerate(container.layers, 1):
        progress(f"layer {number} of {len(container.layers)}: {layer.body.size / 1e6:.1f} MB")
        unpacked = unpack(files.read(layer.body), spool, layer.name, left)
        left -= unpacked.size
        if layer.digest is not None and unpacked.packed_digest != layer.digest:
            raise BadImage(f"{layer.name}: its SHA-256 is {unpacked.packed_digest}, and the manifest says {layer.digest}")
        if unpacked.digest != layer.diff_id:
            raise BadImage(f"{layer.name}: unpacked, its SHA-256 is {unpacked.digest}, and the config says {layer.diff_id}")
        apply_layer(tree, spool, offset=unpacked.offset, size=unpacked.size)
    return container.file.declared


def find_oci(files: Files, platform: str) -> Container:
    """The image of an OCI layout for this platform, such as "linux/amd64". Raises `BadImage` unless there is exactly one."""
    layout = json_object(files.whole("oci-layout", _INDEX_MAX), "oci-layout")
    if layout.get("imageLayoutVersion") != "1.0.0":
        raise BadImage(f"an OCI layout of the unknown version {layout.get('imageLayoutVersion')!a:.40}")
    index = json_object(files.whole("index.json", _INDEX_MAX), "index.json")
    found = dict(_manifests(files, index, iter(range(_MANIFESTS_MAX))))
    images = {}
    for digest, manifest in found.items():
        if isinstance(config := manifest.get("config"), dict) and _is_image(config):
            file = read_image_file(_blob(files, config, CONFIG_MAX))
            images[digest] = (manifest, file)
    fitting = {digest: each for digest, each in images.items() if each[1].platform == platform}
    _require_one([(digest, file.platform) for digest, (_, file) in images.items()], len(fitting), platform)
    digest, (manifest, file) = next(iter(fitting.items()))
    described = manifest.get("layers")
    if not isinstance(described, list):
        raise BadImage("a manifest without layers")
    layers = [_oci_layer(files, each) for each in described]
    return Container(file=file, digest=f"sha256:{digest}", layers=_with_diff_ids(layers, file))


def find_docker(files: Files, platform: str) -> Container:
    """The image of a docker-save archive. Raises `BadImage` unless there is exactly one, and for this platform."""
    data = files.whole("manifest.json", _INDEX_MAX)
    entries = json_object(b'{"images":' + data + b"}", "manifest.json")["images"]
    if not isinstance(entries, list) or len(entries) > _MANIFESTS_MAX or not all(isinstance(each, dict) for each in entries):
        raise BadImage("manifest.json is none that docker save writes")
    found = []
    for each in entries:
        config, names = each.get("Config"), each.get("Layers")
        if not isinstance(names, list) or not all(map(_is_name, [config, *names])):
            raise BadImage("manifest.json has an image without Config and Layers that can be names of files")
        raw = files.whole(config, CONFIG_MAX)
        found.append((sha256(raw).hexdigest(), read_image_file(raw), names))
    fitting = [each for each in found if each[1].platform == platform]
    _require_one([(digest, file.platform) for digest, file, _ in found], len(fitting), platform)
    digest, file, names = fitting[0]
    layers: list[_Stored] = [(files.find(name), name, None) for name in names[: _LAYERS_MAX + 1]]
    return Container(file=file, digest=f"sha256:{digest}", layers=_with_diff_ids(layers, file))


def _manifests(files: Files, index: dict[str, Any], left: Iterator[int], depth: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every manifest that an index leads to, by its digest. As many documents are read as `left` counts."""
    entries = index.get("manifests")
    if not isinstance(entries, list) or len(entries) > _MANIFESTS_MAX or depth > _DEPTH_MAX:
        raise BadImage("an index without manifests, or with too many of them")
    for entry in entries:
        if not isinstance(entry, dict):
            raise BadImage("an index with an entry that is no object")
        annotations = entry.get("annotations")
        if isinstance(annotations, dict) and "vnd.docker.reference.type" in annotations:
            continue  # what a builder says about an image
        if next(left, None) is None:
            raise BadImage(f"an index that leads to more than {_MANIFESTS_MAX} others and manifests: too many of them")
        table = json_object(_blob(files, entry, _INDEX_MAX), "a manifest")
        if entry.get("mediaType") in _INDEXES or "manifests" in table:
            yield from _manifests(files, table, left, depth + 1)
        else:
            yield sha256_of(entry.get("digest")), table


def _require_one(found: list[tuple[str, str]], fitting: int, platform: str) -> None:
    if fitting == 1:
        return
    there = ", ".join(f"{digest[:12]} for {each[:40]!a}" for digest, each in found[:8]) or "none"
    raise BadImage(f"exactly one image for {platform} is needed, and there are {fitting}; found: {there}")


def _blob(files: Files, descriptor: dict[str, Any], most: int) -> bytes:
    """A small file by its descriptor, checked against it."""
    digest = sha256_of(descriptor.get("digest"))
    data = files.whole(_blob_name(digest), most)
    if sha256(data).hexdigest() != digest or descriptor.get("size", len(data)) != len(data):
        raise BadImage(f"blob {digest[:12]} is not what its digest and size say")
    return data


def _oci_layer(files: Files, descriptor: object) -> _Stored:
    if not isinstance(descriptor, dict) or not isinstance(kind := descriptor.get("mediaType"), str):
        raise BadImage("a manifest with a layer that is no descriptor")
    if not any(kind in (base, f"{base}+gzip", f"{base}+zstd", f"{base}.gzip", f"{base}.zstd") for base in _LAYERS):
        raise BadImage(f"a layer of the unknown type {kind[:80]!a}")
    digest = sha256_of(descriptor.get("digest"))
    body = files.find(_blob_name(digest))
    if descriptor.get("size") != body.size:
        raise BadImage(f"layer {digest[:12]} has {body.size} bytes, and its manifest says {descriptor.get('size')!a:.40}")
    return body, f"layer {digest[:12]}", digest


def _with_diff_ids(layers: list[_Stored], file: ImageFile) -> tuple[_Layer, ...]:
    if len(layers) > _LAYERS_MAX or len(layers) != len(file.diff_ids):
        raise BadImage(f"{len(layers)} layers for {len(file.diff_ids)} digests in the image's config; {_LAYERS_MAX} are allowed")
    return tuple(
        _Layer(body=body, name=name, digest=digest, diff_id=diff_id)
        for (body, name, digest), diff_id in zip(layers, file.diff_ids, strict=True)
    )


def _is_image(config: dict[str, Any]) -> bool:
    """Whether a manifest is of an image, and of nothing else that registries store."""
    kind = config.get("mediaType")
    return kind in ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")


def _is_name(value: object) -> bool:
    """Whether docker writes such names: nothing in one drives a terminal."""
    return isinstance(value, str) and len(value) <= _NAME_MAX and value.isascii() and value.isprintable()


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{digest}"
