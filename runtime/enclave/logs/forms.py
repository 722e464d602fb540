"""The ways in which a secret may be written by accident: as it is, in base64, hex, a URL or a JSON text.

Pure. A program that means to publish a secret has endless other ways; nothing here is meant against it.
"""

import json
import re
import string
from base64 import b64encode
from collections.abc import Iterator
from functools import cache

LEAST = 8
"""Bytes of the shortest value that is looked for: shorter ones would be found everywhere."""

_FIRST_OF_ITS_OWN = (0, 2, 3)
"""Characters of base64 that what stands before the value has a part in, by how many bytes that is, modulo 3."""
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_JSON_HEX = re.compile(r"\\u[0-9a-f]{4}")
_WORDS = (string.ascii_letters + string.digits).encode()
_STRICT = _WORDS + b"-._~"
_URL_ENCODERS = (
    (b"", b"%20"),  # all of it
    (_STRICT, b"%20"),  # RFC 3986 section 2.3
    (_STRICT + b"/", b"%20"),  # of paths
    (_STRICT + b"!'()*", b"%20"),  # encodeURIComponent of JavaScript
    (_STRICT + b"!'()*;/?:@&=+$,#", b"%20"),  # encodeURI
    (_STRICT, b"+"),  # forms
    (_WORDS + b"-._*", b"+"),  # forms, as the URL standard has them
)
"""(bytes that stay as they are, what a space becomes)"""
_KEPT_BY_HTML_SAFE_JSON = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def forms(value: bytes) -> set[bytes]:
    """Every form of `value`, and of it without the white space around it: each has at least `LEAST` bytes, none if `value` has fewer."""
    found: set[bytes] = set()
    for each in {value, value.strip()}:
        if len(each) >= LEAST:
            found |= {each, each.hex().encode(), each.hex().upper().encode()}
            found.update(_base64(each))
            found.update(_url(each))
            found.update(_json(each))
    return found


def _base64(value: bytes) -> Iterator[bytes]:
    """Inside a longer text at each of the three alignments, the characters that the value alone decides; at its end, to the end."""
    for before, first in enumerate(_FIRST_OF_ITS_OWN):
        encoded = b64encode(bytes(before) + value)
        own = encoded[first : (before + len(value)) * 8 // 6]
        for form in (own, encoded[first:].rstrip(b"="), encoded[first:]):
            yield form
            yield form.translate(_URL_SAFE)


def _url(value: bytes) -> Iterator[bytes]:
    for table in _url_tables():
        yield b"".join([table[byte] for byte in value])


@cache
def _url_tables() -> tuple[tuple[bytes, ...], ...]:
    """What each byte becomes, for every encoder, with either case of the hexadecimal digits."""
    tables = []
    for kept, space in _URL_ENCODERS:
        for hexadecimal in (b"%%%02X", b"%%%02x"):
            table = [bytes((byte,)) if byte in kept else hexadecimal % byte for byte in range(256)]
            table[ord(" ")] = space
            tables.append(tuple(table))
    return tuple(tables)


def _json(value: bytes) -> Iterator[bytes]:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return
    for encoded in (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]):
        html_safe = "".join(_KEPT_BY_HTML_SAFE_JSON.get(char, char) for char in encoded)
        for form in (encoded, encoded.replace("/", "\\/"), html_safe):
            yield form.encode()
            if "\\u" in form:
                yield _JSON_HEX.sub(lambda found: "\\u" + found[0][2:].upper(), form).encode()
