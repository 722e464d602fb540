"""Looks for a secret in what somebody could read: as it is, in hex, and in base64 at each of its three alignments."""

import base64
from collections.abc import Iterable, Iterator, Mapping

WINDOW = 24
"""Bytes of a piece of something long: whoever leaks twice as many leaks one whole piece."""

_LEADING = (0, 2, 3)  # characters of base64 that bytes in front of the secret have a part in, by how many bytes those are
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def forms(secret: bytes) -> Iterator[bytes]:
    """Every form of `secret` that is looked for."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for before, leading in enumerate(_LEADING):
        encoded = base64.b64encode(bytes(before) + secret)[leading : (before + len(secret)) * 8 // 6]
        yield encoded
        yield encoded.translate(_URL_SAFE)


def find_leaks(read: Iterable[bytes], secrets: Mapping[str, bytes]) -> list[str]:
    """The names of those secrets that stand in anything that was read."""
    everything = list(read)
    assert all(len(secret) >= 16 for secret in secrets.values()), "too short to tell from chance"
    return [name for name, secret in secrets.items() if any(form in data for form in forms(secret) for data in everything)]


def pieces(name: str, data: bytes) -> dict[str, bytes]:
    """`data` in pieces that are looked for one by one."""
    whole = range(0, len(data) - WINDOW + 1, WINDOW)
    return {f"{name}[{start}:]": data[start : start + WINDOW] for start in whole}
