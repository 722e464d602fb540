"""Images that somebody made to do harm, or damaged: each by a name that says how, with a word of the error that it must give."""

import gzip
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zstandard

from tests.image.containers import ROOT, Oci, described, docker_save, hexed, packed
from tests.image.trees import Entry, file, folder, hard, layer, link

GOOD = packed(*ROOT)
ZEROS = gzip.compress(bytes(1 << 24), 9, mtime=0)
_KIND = "application/vnd.oci.image.manifest.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """`make` gives the file that `enclave build` is to read."""

    name: str
    words: str
    make: Callable[[], bytes]


def in_layer(name: str, words: str, *entries: Entry) -> list[Hostile]:
    """The same entries in a layer of an image, and in a root archive."""
    return [
        Hostile(name=f"{name}, in a layer", words=words, make=Oci(layers=[GOOD, packed(*entries)]).tar),
        Hostile(name=f"{name}, in a root archive", words=words, make=lambda: layer(*ROOT, *entries)),
    ]


def oci(name: str, words: str, *layers: tuple[bytes, bytes], **fields: Any) -> Hostile:
    return Hostile(name=name, words=words, make=Oci(layers=layers or [GOOD], **fields).tar)


def saved(name: str, words: str, manifest: Any, *extra: Entry) -> Hostile:
    return Hostile(name=name, words=words, make=lambda: docker_save(Oci(layers=[GOOD]), manifest=manifest, extra=extra))


def raw(name: str, words: str, data: bytes) -> Hostile:
    return Hostile(name=name, words=words, make=lambda: data)


def pax(**headers: str) -> Entry:
    return Entry(name="a", headers=tuple(headers.items()))


def many_headers(kind: bytes, count: int) -> bytes:
    """An archive of nothing but headers that lead to the next one."""
    single = layer(Entry(name="x", kind=kind, data=b"11 path=abc"))[:1024]
    return single * count + bytes(1024)


def with_global_header(size: int, entries: int) -> bytes:
    """An archive whose first header gives each of its entries an attribute."""
    header = tarfile.TarInfo.create_pax_global_header({"SCHILY.xattr.security.capability": "x" * size})
    return header + layer(*(file(f"f{number}") for number in range(entries)))


def nested(name: str, words: str) -> Hostile:
    """Three indexes, each of which leads twenty times to the next one."""
    files: dict[str, bytes] = {}
    data = json.dumps({"manifests": []}).encode()
    for _ in range(3):
        files[f"blobs/sha256/{hexed(data)}"] = data
        data = json.dumps({"manifests": [described(data, "application/vnd.oci.image.index.v1+json")] * 20}).encode()
    return oci(name, words, files={**files, "index.json": data})


def lying_size(data: bytes, size: bytes) -> bytes:
    """The size of the first entry, in the octal or binary form of ustar, and the checksum that goes with it."""
    head = bytearray(data[:512])
    head[124:136] = size
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + data[512:]


def manifest(**fields: Any) -> dict[str, Any]:
    config = Oci(layers=[GOOD]).image_file()
    right = {
        "config": described(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [described(GOOD[0], _LAYER)],
    }
    return {**right, **fields}


STORED, PLAIN = GOOD
FILE = layer(file("a", b"content"), file("b"))
LEADS_OUT = "leads out"
ENTRIES = [
    *in_layer("a name that leads out", LEADS_OUT, file("../../etc/cron.d/x")),
    *in_layer("a name that leads out in its middle", LEADS_OUT, file("etc/../../x")),
    *in_layer("an absolute name", "absolute", file("/etc/passwd")),
    *in_layer("a name with a control character that leads out", LEADS_OUT, file("\x1b[2J/../x")),
    *in_layer("a hard link that leads out", LEADS_OUT, hard("x", "../../../etc/shadow")),
    *in_layer("a hard link to what only the build machine has", "no file here", hard("x", "proc/self/environ")),
    *in_layer("a hard link to a folder", "no file here", hard("x", "bin")),
    *in_layer("a hard link through a link that leads out", "no file here", link("up", "../../../.."), hard("x", "up/etc/hostname")),
    *in_layer("a file behind links in a circle", "too many symbolic links", link("l", "m"), link("m", "l"), file("l/x")),
    *in_layer("a file in a file", "is no folder", file("x"), file("x/y")),
    *in_layer("an unknown type of entry", "unknown type", Entry(name="x", kind=b"Z")),
    *in_layer("a link to nothing", "symbolic link to nothing", link("x", "")),
    *in_layer("a long name", "255", file("n" * 300)),
    *in_layer("a long path", "4096", file("/".join(["d" * 100] * 50))),
    *in_layer("folders in each other", "more than 256 folders", file("/".join(["d"] * 257))),
    *in_layer(
        "folders in each other through a link",
        "more than 256 folders",
        folder("/".join(["d"] * 200)),
        link("l", "/".join(["d"] * 200)),
        file("l/" + "/".join(["e"] * 60)),
    ),
    *in_layer("a path that is too long below its root folder", "4096", file("/".join(["d" * 100] * 40 + ["e" * 54]))),
    *in_layer("an owner that is none", "owner", pax(uid="-5")),
    *in_layer("a group beyond 32 bits", "owner", pax(gid=str(2**40))),
    *in_layer("a size beyond the archive", "", pax(size=str(2**62))),
    *in_layer("a size of 64 bits", "", pax(size=str(2**64 - 1))),
    *in_layer("a negative size", "", pax(size="-1")),
    *in_layer("a sparse file of a terabyte", "sparse", pax(**{"GNU.sparse.size": str(2**40), "GNU.sparse.map": "0,1"})),
    *in_layer("a root that is a device", "root of a layer", Entry(name="./", kind=b"3", device=(1, 1))),
    *in_layer("a /proc that leads elsewhere", "/proc of the image is no folder", link("proc", "/etc")),
    *in_layer("a /dev that is a device", "/dev of the image is no folder", Entry(name="dev", kind=b"4", device=(8, 0))),
    *in_layer("a sentinel of its own", "builder's to make", file(".enclave-complete", b"1\n")),
    *in_layer(
        "an attribute of a hundred kilobytes", "attributes of more", pax(**{"SCHILY.xattr.security.capability": "x" * 100_000})
    ),
    *in_layer("more headers than any entry has", "pax headers", pax(**{f"key{number}": "" for number in range(1100)})),
    *in_layer("an attribute that would be lost", "user.secret", pax(**{"SCHILY.xattr.user.secret": "x"})),
    oci("a whiteout of nothing", "whiteout", GOOD, packed(file("etc/.wh."))),
    oci("a whiteout of what is above", "whiteout", GOOD, packed(file("etc/.wh..."))),
]
CONTENTS = [
    oci("ten gigabytes of zeros in a small layer", "bomb", (ZEROS * 640, b"")),
    oci("zeros by zstd", "bomb", (zstandard.compress(bytes(1 << 27)), b"")),
    oci("a million entries in a small layer", "bomb", (gzip.compress(layer(file("a", b""))[:512] * 200_000) * 5, b"")),
    raw("a root archive of zeros", "bomb", ZEROS * 640),
    oci("a layer that was cut off", "cut off", (STORED[:-40], PLAIN)),
    oci("a layer with a damaged end", "damaged", (STORED[:-8] + bytes(8), PLAIN)),
    oci("a layer with something behind it", "damaged", (STORED + b"more", PLAIN)),
    oci("a zstd layer that was cut off", "cut off", (zstandard.compress(PLAIN)[:-9], PLAIN)),
    oci("a layer that is not what its diff_id says", "the config says", (STORED, PLAIN + b"x")),
    oci("a layer that is no archive", "no tar archive", (b"no archive" * 100, b"no archive" * 100)),
    raw("a root archive that was cut off", "", PLAIN[:1400]),
    raw("a root archive that was damaged further on", "damaged", PLAIN[:1536] + b"\xff" * 512 + PLAIN[2048:]),
    raw("a binary size of 64 bits", "", lying_size(FILE, b"\x80\0\0\0" + b"\xff" * 8)),
    raw("a negative binary size", "", lying_size(FILE, b"\xff" * 12)),
    raw("a header of a gigabyte", "header", lying_size(layer(Entry(name="x", kind=b"x")), b"10000000000\0") + bytes(2048)),
    raw("attributes of every entry behind a global header", "attributes of more", with_global_header(60_000, 300)),
    raw("headers that lead to headers", "", many_headers(b"x", 3000)),
    raw("names that lead to names", "", many_headers(b"L", 3000)),
    raw("an empty file", "empty", b""),
    raw("zeros", "no file", bytes(4096)),
    raw("a gzip file of nothing", "empty", gzip.compress(b"")),
    raw("text", "no tar archive", b"FROM debian\n" * 100),
]
CONFIG_BLOB = {f"blobs/sha256/{hexed(Oci(layers=[GOOD]).image_file())}": b"{}"}
LAYER_BLOB = {f"blobs/sha256/{hexed(STORED)}": STORED[:9] + b"\x02" + STORED[10:]}
CIRCLE = link("l", "m"), link("m", "l")
INDEXES = [
    oci("another version of the layout", "version", files={"oci-layout": b'{"imageLayoutVersion": "9"}'}),
    oci("a layout that is no JSON", "no JSON", files={"oci-layout": b"{"}),
    oci("an index that is deeper than any parser", "no JSON", files={"index.json": b"[" * 100_000}),
    oci("an index without manifests", "without manifests", index={"manifests": None}),
    oci("an index of too many manifests", "too many", index={"manifests": [{}] * 300}),
    nested("indexes that lead to each other again and again", "too many"),
    oci("an index with a name for a digest", "no SHA-256", index={"manifests": [{"digest": "sha256:../../../etc/passwd"}]}),
    oci("an index with a digest that leads out", "no SHA-256", index={"manifests": [{"digest": "../index.json"}]}),
    oci("a manifest that is not there", "no file of the archive", index={"manifests": [described(b"nowhere", _KIND)]}),
    oci("no image for the platform", "exactly one image", config={"architecture": "arm64"}),
    oci("a manifest of something else", "exactly one image", manifest={"config": {"mediaType": "application/vnd.wasm"}}),
    oci("a config that is not what its digest says", "not what its digest", files=CONFIG_BLOB),
    oci("a layer that is not what its digest says", "the manifest says", files=LAYER_BLOB),
    oci("a layer of another size", "bytes, and its manifest says", manifest=manifest(layers=[described(STORED, _LAYER, size=1)])),
    oci("a size of 64 bits in a manifest", "manifest says", manifest=manifest(layers=[described(STORED, _LAYER, size=2**64)])),
    oci("a layer of an unknown type", "unknown type", manifest=manifest(layers=[described(STORED, "application/x-sh")])),
    oci("an encrypted layer", "unknown type", manifest=manifest(layers=[described(STORED, f"{_LAYER}+encrypted")])),
    oci("layers that are no list", "without layers", manifest=manifest(layers={})),
    oci("fewer layers than digests", "layers for", manifest=manifest(layers=[])),
    oci("a config without layers", "names no layers", config={"rootfs": None}),
    oci("an Entrypoint that is a shell's line", "Entrypoint", declared={"Entrypoint": "/bin/sh -c x"}),
    oci("a Cmd with a zero byte", "Cmd", declared={"Cmd": ["a\0b"]}),
    oci("a Cmd with half a character", "Cmd", declared={"Cmd": ["\ud800"]}),
    oci("an Env without a name", "Env", declared={"Env": ["=x"]}),
    oci("a WorkingDir that leads out", "WorkingDir", declared={"WorkingDir": "/a/../../b"}),
    saved("a saved image whose layers lead out", LEADS_OUT, [{"Config": "config.json", "Layers": ["../../etc/passwd"]}]),
    saved("a saved image whose config is absolute", "absolute", [{"Config": "/etc/passwd", "Layers": []}]),
    saved("a saved image with a link that leads out", "", [{"Config": "l", "Layers": ["0/layer.tar"]}], link("l", "../../etc/passwd")),
    saved("a saved image with links in a circle", "no file of the archive", [{"Config": "l", "Layers": []}], *CIRCLE),
    saved("a saved image without Layers", "without Config and Layers", [{"Config": "config.json"}]),
    saved("a saved image with half a character", "without Config", [{"Config": "\ud800", "Layers": []}]),
    saved("a saved image with a name for terminals", "without Config", [{"Config": "config.json", "Layers": ["\x1b[2J"]}]),
    oci("a platform for terminals", "exactly one image", config={"architecture": "\x1b[2J" + "x" * 9000}),
    saved("a saved archive of nothing", "exactly one image", []),
    saved("two saved images", "exactly one image", [{"Config": "config.json", "Layers": ["0/layer.tar"]}] * 2),
    saved("a saved image of numbers", "none that docker save writes", [1, 2]),
    Hostile(name="a file that stands twice", words="twice", make=lambda: layer(file("index.json"), file("index.json"), folder("a"))),
    raw("a saved archive that is no JSON", "no JSON", layer(file("manifest.json", b"[{]"))),
]  # fmt: skip
ALL = [*ENTRIES, *CONTENTS, *INDEXES]
