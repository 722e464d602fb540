"""Private keys in an image: what is baked is public to everybody who gets the file, so a key in it is no secret any more.

Looked at are files of up to a megabyte, for keys in PEM form, also indented or in a string of JSON or YAML, and for DER or PKCS#12 under
the names that such files have. A program that holds the words "BEGIN PRIVATE KEY" and no key is none.
"""

import re
import stat
from collections.abc import Iterable

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key

from runtime.image.contents import BadImage, Read, Tree, clean_path, shown

FILE_MAX = 1 << 20
_NEW_LINE = rb"(?:\r?\n|(?:\\+r)?\\+n)"  # as it is, or as strings write it
_PEM = re.compile(
    rb"-----BEGIN (?P<kind>(?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?)-----[ \t]*NEW_LINE"
    rb"(?:[ \t]*[A-Za-z-]+: [^\n\r\\]*NEW_LINE)*(?:[ \t]*NEW_LINE)*(?:[ \t]*[A-Za-z0-9+/=]+[ \t]*NEW_LINE)+"
    rb"[ \t]*-----END (?P=kind)-----".replace(b"NEW_LINE", _NEW_LINE)
)
_PUTTY = b"PuTTY-User-Key-File-"
_DER_NAMES = (b".key", b".der", b".pk8", b".p8")
_CONTAINER_NAMES = (b".p12", b".pfx")


def find_private_keys(tree: Tree, read: Read) -> list[bytes]:
    """The paths of the files that hold one, hard links each for itself."""
    found = []
    for path, node in tree.walk():
        if stat.S_ISREG(node.mode) and 0 < node.body.size <= FILE_MAX and _is_key(path, b"".join(read(node.body))):
            found.append(path)
    return found


def refuse_private_keys(tree: Tree, read: Read, allowed: Iterable[str]) -> tuple[str, ...]:
    """The keys that were allowed and are there. Raises `BadImage` naming every other, and what was allowed and is no key."""
    wanted = {clean_path(name.lstrip("/").encode()) for name in allowed}
    found = find_private_keys(tree, read)
    if unknown := wanted.difference(found):
        raise BadImage(f"{shown(min(unknown))} was allowed as a private key, and the image has no key there")
    if refused := [shown(path) for path in found if path not in wanted]:
        more = f" and {len(refused) - 8} more" if len(refused) > 8 else ""
        raise BadImage(f"private keys in the image: {', '.join(refused[:8])}{more}; take them out, or allow each by its path")
    return tuple(shown(path) for path in found)


def _is_key(path: bytes, data: bytes) -> bool:
    if (b"PRIVATE KEY" in data and _PEM.search(data)) or data.startswith(_PUTTY):
        return True
    name = path.lower()
    return name.endswith(_CONTAINER_NAMES) or (name.endswith(_DER_NAMES) and _is_der_key(data))


def _is_der_key(data: bytes) -> bool:
    try:
        load_der_private_key(data, None)
    except TypeError:
        return True  # an encrypted one
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True
