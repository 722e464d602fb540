"""Container images, kernels and runtimes as tests make them: small, and wrong in one way where a test wants that."""

import gzip
import io
import json
import struct
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.image.trees import Entry, file, folder, layer

KERNEL_VERSION = "6.12.1-test"
ROOT = (folder("bin"), file("bin/app", b"the application", mode=0o755), folder("etc"), file("etc/passwd", b"app:x:1000:1001::/:\n"))


def hexed(data: bytes) -> str:
    return sha256(data).hexdigest()


@dataclass(kw_only=True)
class Oci:
    """An OCI layout. Layers are (bytes as stored, bytes unpacked); `config` and `manifest` are merged over what would be right."""

    layers: Sequence[tuple[bytes, bytes]] = ()
    declared: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    index: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)

    def image_file(self) -> bytes:
        diff_ids = [f"sha256:{hexed(plain)}" for _, plain in self.layers]
        table = {
            "architecture": "amd64",
            "os": "linux",
            "config": self.declared,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        return json.dumps({**table, **self.config}).encode()

    def all_files(self) -> dict[str, bytes]:
        config = self.image_file()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "config": described(config, "application/vnd.oci.image.config.v1+json"),
                "layers": [described(data, "application/vnd.oci.image.layer.v1.tar+gzip") for data, _ in self.layers],
                **self.manifest,
            }
        ).encode()
        index = {"schemaVersion": 2, "manifests": [described(manifest, "application/vnd.oci.image.manifest.v1+json")], **self.index}
        blobs = {f"blobs/sha256/{hexed(data)}": data for data in (config, manifest, *(stored for stored, _ in self.layers))}
        top = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode()}
        return {**blobs, **top, **self.files}

    def tar(self) -> bytes:
        return layer(*(file(name, data) for name, data in self.all_files().items()))

    def write(self, place: Path) -> Path:
        for name, data in self.all_files().items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
        return place


def described(data: bytes, kind: str, **others: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{hexed(data)}", "size": len(data)} | others


def packed(*entries: Entry) -> tuple[bytes, bytes]:
    """A layer as it is stored, and unpacked."""
    plain = layer(*entries)
    return gzip.compress(plain, mtime=0), plain


def docker_save(oci: Oci, *, manifest: Any = None, extra: Sequence[Entry] = ()) -> bytes:
    """The archive of `docker save`, in which a layer that is there twice is a link."""
    config = oci.image_file()
    names = [f"{number}/layer.tar" for number in range(len(oci.layers))]
    entries = [file("config.json", config), *extra]
    entries += [file(name, plain) for name, (_, plain) in zip(names, oci.layers, strict=True)]
    table = [{"Config": "config.json", "RepoTags": ["app:1"], "Layers": names}] if manifest is None else manifest
    return layer(*entries, file("manifest.json", json.dumps(table).encode()))


def kernel_folder(place: Path) -> Path:
    image = bytearray(0x400)
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x20E, 0x100)
    image[0x300 : 0x300 + len(KERNEL_VERSION)] = KERNEL_VERSION.encode()
    (place / "modules").mkdir(parents=True)
    (place / "bzImage").write_bytes(image)
    (place / "cmdline").write_text("console=ttyS0 reboot=k\n")
    (place / "nsm.ko").write_bytes(b"\x7fELF nsm")
    (place / "init").write_bytes(b"\x7fELF AWS's init")
    return place


def runtime_folder(place: Path) -> Path:
    (place / "usr/bin").mkdir(parents=True)
    (place / "init").write_text("#!/usr/bin/python3.11 -IS\n")
    (place / "usr/bin/python3.11").write_bytes(b"\x7fELF".ljust(18, b"\0") + b"\x3e\0the interpreter")
    for path in ("init", "usr/bin/python3.11"):
        (place / path).chmod(0o755)
    return place


def tar_of(path: Path) -> bytes:
    """A folder as a tar archive, as any tool makes one."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(path, arcname=".")
    return out.getvalue()
