"""Reads what the bundle is made of: Debian's packages and Python's wheels, both without any tool of theirs.

Both were checked against the lock before: what is in them is believed, and an error here is one of the lock's.
"""

import io
import json
import posixpath
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_AR_MAGIC = b"!<arch>\n"
_AR_HEAD = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One package: its files by their path, links followed, the texts of its licences by their path, and its own lists of parts.

    Such a list is a CycloneDX document that a wheel has (PEP 770): what was compiled into it.
    """

    name: str
    version: str
    kind: str
    sha256: str
    files: Mapping[str, bytes]
    licences: Mapping[str, str]
    lists: tuple[Mapping[str, Any], ...] = ()


def read_deb(path: Path, *, name: str, version: str, sha256: str) -> Package:
    """A Debian package: an ar(5) archive whose member data.tar.* holds the files (deb(5))."""
    with tarfile.open(fileobj=io.BytesIO(_data_member(path.read_bytes()))) as archive:
        members = {posixpath.normpath(member.name): member for member in archive.getmembers()}
        files = {}
        for place, member in members.items():
            file = _followed(members, place)
            content = None if file is None else archive.extractfile(file)
            if content is not None and not member.isdir():
                files[place] = content.read()
    notice = f"usr/share/doc/{name}/copyright"
    licences = {notice: files[notice].decode()} if notice in files else {}
    return Package(name=name, version=version, kind="deb", sha256=sha256, files=files, licences=licences)


def read_wheel(path: Path, *, name: str, version: str, sha256: str) -> Package:
    """A wheel (PyPA, binary distribution format): a zip archive."""
    with zipfile.ZipFile(path) as archive:
        files = {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}
    licences = {
        place: data.decode()
        for place, data in files.items()
        if ".dist-info/" in place and "licen" in place.rpartition("/")[2].lower()
    }
    lists = tuple(json.loads(data) for place, data in sorted(files.items()) if ".dist-info/sboms/" in place)
    return Package(name=name, version=version, kind="pypi", sha256=sha256, files=files, licences=licences, lists=lists)


def _data_member(archive: bytes) -> bytes:
    if not archive.startswith(_AR_MAGIC):
        raise ValueError("no Debian package")
    place = len(_AR_MAGIC)
    while place < len(archive):
        head = archive[place : place + _AR_HEAD]
        size = int(head[48:58])
        place += _AR_HEAD
        if head.startswith(b"data.tar"):
            return archive[place : place + size]
        place += size + size % 2
    raise ValueError("a Debian package without data")


def _followed(members: Mapping[str, tarfile.TarInfo], place: str) -> tarfile.TarInfo | None:
    """The regular file that is found at a place of the package; None when there is none."""
    for _ in range(8):
        member = members.get(place)
        if member is None or member.isfile():
            return member
        if member.issym():
            place = posixpath.normpath(posixpath.join(posixpath.dirname(place), member.linkname)).lstrip("/")
        elif member.islnk():
            place = posixpath.normpath(member.linkname)
        else:
            return None
    return None
