"""What a container image says of how it is to be run, taken word for word: argv arrays stay arrays, nothing goes through a shell.

Source: OCI, *Image Format Specification*, config.md. The file comes from whoever made the image. `enclave/image.json`, which
the enclave reads at its boot (runtime/enclave/platform.py), is written here, always in the same bytes.
"""

import json
import posixpath
import re
from dataclasses import dataclass
from typing import Any

from runtime.image.contents import BadImage, Read, Tree, shown

CONFIG_MAX = 4 << 20
_USERS_MAX = 1 << 20  # bytes of /etc/passwd and of /etc/group
_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")
_ID_MAX = 2**32 - 2
_RUNTIMES_OWN = range(65500, 65520)  # as in runtime/enclave/config_values.py


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """The image's own words; what it does not say is empty. `stop_signal` and `health_check` are not used by the runtime."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    user: str = ""
    directory: str = ""
    stop_signal: str = ""
    has_health_check: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who the image wants its program to be, in numbers."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """An image's config file: its platform, the digests of its layers' contents (SHA-256), and what it declares."""

    platform: str
    diff_ids: tuple[str, ...]
    declared: Declared


def read_image_file(data: bytes) -> ImageFile:
    """Reads the JSON of a config blob. Raises `BadImage`."""
    table = json_object(data, "the image's config")
    root = table.get("rootfs")
    if not isinstance(root, dict) or root.get("type") != "layers":
        raise BadImage("the image's config names no layers: is this an image?")
    return ImageFile(
        platform=f"{table.get('os')}/{table.get('architecture')}",
        diff_ids=tuple(sha256_of(each) for each in _strings(root, "diff_ids")),
        declared=_declared(table.get("config") or {}),
    )


def image_json(declared: Declared, account: Account | None) -> bytes:
    """What is baked as `enclave/image.json`."""
    table: dict[str, Any] = {
        "Cmd": list(declared.command),
        "Entrypoint": list(declared.entrypoint),
        "Env": list(declared.environment),
        "WorkingDir": declared.directory or "/",
    }
    if account is not None:
        table |= {"Groups": list(account.groups), "User": f"{account.uid}:{account.gid}"}
    return json.dumps(table, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def account_of(user: str, tree: Tree, read: Read) -> Account | None:
    """The numbers of a `User`, looked up in the image's own files; None when it is empty. Raises `BadImage`, also for user 0.

    Digits are a number, whoever has them for a name. User 0 is for enclave.toml alone to grant: in an image it is mostly an oversight.
    """
    if not user:
        return None
    name, _, group = user.partition(":")
    column = 2 if _NUMBER.fullmatch(name) else 0
    entry = next((each for each in _lines(tree, read, b"etc/passwd", 4) if name == each[column]), None)
    if _NUMBER.fullmatch(name):
        uid = int(name)
    elif entry is not None:
        uid = _id(entry[2], user)
    else:
        raise BadImage(f"the image's User is {user[:80]!a}, and its /etc/passwd has no such name: name `user` in enclave.toml")
    if uid == 0:
        raise BadImage(
            f"the image's User is {user[:80]!a}, which is user 0: name `user` in enclave.toml, or another User in the image"
        )
    groups = [*_lines(tree, read, b"etc/group", 3)]
    if group:
        found = group if _NUMBER.fullmatch(group) else next((each[2] for each in groups if each[0] == group), group)
        return Account(uid=_id(str(uid), user), gid=_id(found, user))
    gid = _id(entry[3], user) if entry is not None else 0
    others = {_id(each[2], user) for each in groups if entry is not None and entry[0] in each[-1].split(",")} - {gid}
    return Account(uid=_id(str(uid), user), gid=gid, groups=tuple(sorted(others)))


def json_object(data: bytes, name: str) -> dict[str, Any]:
    """A JSON object. Raises `BadImage`."""
    try:
        table = json.loads(data)
    except (ValueError, RecursionError):
        raise BadImage(f"{name} is no JSON") from None
    if not isinstance(table, dict):
        raise BadImage(f"{name} is no JSON object")
    return table


def sha256_of(text: object) -> str:
    """The hexadecimal digits of a digest "sha256:…". Raises `BadImage`."""
    if not isinstance(text, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        raise BadImage(f"{str(text)[:80]!a} is no SHA-256 digest")
    return text.removeprefix("sha256:")


def _declared(table: object) -> Declared:
    if not isinstance(table, dict):
        raise BadImage("the image's config has a `config` that is no object")
    environment = _strings(table, "Env")
    for entry in environment:
        if entry.startswith("=") or "=" not in entry:
            raise BadImage(f"the image's Env has {entry[:80]!a}, which is no NAME=VALUE")
    directory = _string(table, "WorkingDir")
    if directory and (not directory.startswith("/") or ".." in directory.split("/")):
        raise BadImage(f"the image's WorkingDir {directory[:80]!a} is no absolute path")
    return Declared(
        entrypoint=_strings(table, "Entrypoint"),
        command=_strings(table, "Cmd"),
        environment=environment,
        user=_string(table, "User"),
        directory=posixpath.normpath(directory) if directory else "",
        stop_signal=_string(table, "StopSignal"),
        has_health_check=bool(table.get("Healthcheck")),
    )


def _strings(table: dict[str, Any], key: str) -> tuple[str, ...]:
    value = table.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) and _is_argument(each) for each in value):
        raise BadImage(f"the image's {key} is no list of texts")
    return tuple(value)


def _string(table: dict[str, Any], key: str) -> str:
    value = table.get(key) or ""
    if not isinstance(value, str) or not _is_argument(value):
        raise BadImage(f"the image's {key} is no text")
    return value


def _is_argument(text: str) -> bool:
    """Whether it can be an argument or a variable of a program. JSON can write halves of characters."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _lines(tree: Tree, read: Read, path: bytes, fields: int) -> list[list[str]]:
    """The fields of each line of a file such as /etc/passwd, of which there are at least so many; none without the file."""
    node = tree.get(tree.resolve(path))
    if node is None or node.is_folder:
        return []
    if node.body.size > _USERS_MAX:
        raise BadImage(f"{shown(path)} has more than {_USERS_MAX} bytes")
    text = b"".join(read(node.body)).decode("utf-8", "surrogateescape")
    return [parts for line in text.splitlines() if len(parts := line.split(":")) >= fields]


def _id(text: str, user: str) -> int:
    if _NUMBER.fullmatch(text) and int(text) in _RUNTIMES_OWN:
        raise BadImage(
            f"the image's User is {user[:80]!a}, which leads to {text}: {_RUNTIMES_OWN[0]} to {_RUNTIMES_OWN[-1]} are the runtime's"
        )
    if not _NUMBER.fullmatch(text) or int(text) > _ID_MAX:
        raise BadImage(f"the image's User is {user[:80]!a}, which leads to {text[:40]!a}: no number of a user or group")
    return int(text)
