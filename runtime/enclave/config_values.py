"""The values of enclave.toml that have a notation of their own, read strictly.

Runs inside the enclave and in `enclave check`. The text is the customer's own and measured; it is read strictly because a typing
error must be an error and not another meaning. Every function raises ValueError that says what would be right.
"""

import base64
import binascii
import re
from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, TypeAlias
from urllib.parse import SplitResult, urlsplit

from runtime.net.endpoint import Tcp
from runtime.settings import Duration, KeyProblem, Parse, Pattern, Range

RUNTIME_UID_RANGE = range(65500, 65520)
"""User and group ids that the runtime's own workers run under: no customer process may have one.

Those above are left to images: widespread ones have a user 65532.
"""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_USER = re.compile(r"(0|[1-9][0-9]{0,9})(?::(0|[1-9][0-9]{0,9}))?")
_UMASK = re.compile(r"0?[0-7]{3}")
_ID_MAX = 2**32 - 2  # 2**32 - 1 means "no change" to setuid(2)


@dataclass(frozen=True, slots=True)
class User:
    """The ids that a customer process runs under; written "uid:gid", or "uid" when both are the same."""

    uid: int
    gid: int

    @classmethod
    def parse(cls, text: str) -> "User":
        match = _USER.fullmatch(text)
        if match is None:
            raise ValueError('must be numeric, "uid" or "uid:gid": names would be looked up in files of the image')
        uid = int(match[1])
        gid = uid if match[2] is None else int(match[2])
        for number in (uid, gid):
            if number > _ID_MAX:
                raise ValueError(f"must not be over {_ID_MAX}")
            if number in RUNTIME_UID_RANGE:
                raise ValueError(f"{number} is the runtime's own: {RUNTIME_UID_RANGE[0]} to {RUNTIME_UID_RANGE[-1]} are reserved")
        return cls(uid, gid)

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid}"


@dataclass(frozen=True, slots=True)
class Url:
    """A URL without user, query and fragment. `path` is "" or starts with a slash."""

    scheme: str
    host: str
    port: int
    path: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def umask(text: str) -> int:
    """File mode bits that are taken off (umask(2)), in octal: "0022" or "022"."""
    if not _UMASK.fullmatch(text):
        raise ValueError('must be three octal digits, with a zero before them or without, such as "0022"')
    return int(text, 8)


def show_umask(mask: int) -> str:
    """The reverse of `umask`."""
    return f"{mask:04o}"


def unique(entries: tuple[object, ...], key: str) -> None:
    """For a `__post_init__`: raises `KeyProblem` when `key` names something twice."""
    for entry, count in Counter(entries).items():
        if count > 1:
            raise KeyProblem(f"names {entry} more than once", key)


def https_url(text: str) -> Url:
    """A provisioner's address: https, port 443 unless it is written, no path."""
    url = _url(text, "https", 443)
    if url.path not in ("", "/"):
        raise ValueError("must not have a path")
    return Url(url.scheme, url.host, url.port, "")


def http_url(text: str) -> Url:
    """What a readiness check asks for: http, port 80 unless it is written."""
    return _url(text, "http", 80)


def host_and_port(text: str) -> Tcp:
    """An address for a readiness check, "127.0.0.1:8080"."""
    try:
        return Tcp.parse(f"tcp:{text}")
    except ValueError:
        raise ValueError('must be a host and a port, such as "127.0.0.1:8080"') from None


def dns_name(text: str) -> str:
    """A host name (RFC 1123 section 2.1, lower case here), without wildcards or closing dot; never an IP address."""
    name = text.lower()
    labels = name.split(".")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdecimal():
        raise ValueError('must be a DNS name, such as "app.example.com"')
    return name


def network(text: str) -> IPv4Network | IPv6Network:
    """An address range; a bare address is a range of one."""
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f'must be a network, such as "10.1.0.0/16": {error}') from None


def root_key(text: str) -> bytes:
    """An Ed25519 public key, "ed25519:" and the base64 of its 32 bytes."""
    kind, _, encoded = text.partition(":")
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if kind != "ed25519" or len(key) != 32:
        raise ValueError('must be "ed25519:" and the base64 of 32 bytes')
    return key


def show_host_and_port(address: Tcp) -> str:
    """The reverse of `host_and_port`."""
    return str(address).removeprefix("tcp:")


def show_root_key(key: bytes) -> str:
    """The reverse of `root_key`."""
    return "ed25519:" + base64.b64encode(key).decode()


@dataclass(frozen=True, slots=True)
class _NotReserved:
    """A rule: no group of the runtime's own workers."""

    def complaint(self, value: int) -> str | None:
        reserved = f"{RUNTIME_UID_RANGE[0]} to {RUNTIME_UID_RANGE[-1]}"
        return f"must not be the runtime's own: {reserved} are reserved" if value in RUNTIME_UID_RANGE else None


Wait: TypeAlias = Annotated[Duration, Range(0.1, 3600)]
Argument: TypeAlias = Annotated[str, Pattern(r"[^\x00]*", "text without a zero byte")]
GroupId: TypeAlias = Annotated[int, Range(0, _ID_MAX), _NotReserved()]
DnsName: TypeAlias = Annotated[str, Parse(dns_name)]
AbsolutePath: TypeAlias = Annotated[str, Pattern(r"/[^\x00]*", "an absolute path")]
VariableName: TypeAlias = Annotated[str, Pattern(r"[A-Za-z_][A-Za-z0-9_]{0,127}", "a name of letters, digits and underscores")]
Label: TypeAlias = Annotated[
    str, Pattern(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?", "1 to 64 lower-case letters, digits, dots, hyphens and underscores")
]


def _url(text: str, scheme: str, default_port: int) -> Url:
    example = f'must be a URL, such as "{scheme}://host.example.com:{default_port}"'
    try:
        parts: SplitResult = urlsplit(text)
        address = Tcp(parts.hostname or "", default_port if parts.port is None else parts.port)
    except ValueError as error:
        raise ValueError(f"{example}: {error}") from None
    if parts.scheme != scheme:
        raise ValueError(f"must start with {scheme}://")
    if parts.username is not None or parts.query or parts.fragment or re.search(r"[^!-~]|[?#]", text):
        raise ValueError(f"{example}, without user, query and fragment")
    return Url(scheme, address.host, address.port, parts.path)
