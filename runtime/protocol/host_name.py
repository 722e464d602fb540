"""Host names as they are compared: in ASCII, lower case, without the closing dot, and never an IP address in any spelling.

Runs wherever a name is judged; pure. Two ways in: `wire_name` for what a program or a peer sent, which must be ASCII already, and
`host_name` for what a person wrote, which may hold letters of any script (IDNA 2008, RFC 5891, by the `idna` package that trio
brings). Both give the same text for the same name, so that comparing is `==`.
"""

import re

from runtime.protocol.errors import Malformed

NAME_MAX = 253
"""Octets of a name without its closing dot (RFC 1035 section 2.3.4 less the root's length octet)."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_UPPER_TO_LOWER = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def wire_name(text_untrusted: str) -> str:
    """The name in letters, digits and hyphens (RFC 1123 section 2.1) that `text_untrusted` spells.

    One closing dot and the case of letters make no difference. A last label that resolvers read as a number (WHATWG URL, "ends in a
    number") makes the text an address. Raises `Malformed`: `not_a_name`, `name_too_long`, `name_is_address`.
    """
    if len(text_untrusted) > NAME_MAX + 1:
        raise Malformed(f"a name of over {NAME_MAX} octets", "name_too_long")
    name = text_untrusted.removesuffix(".").translate(_UPPER_TO_LOWER)
    if len(name) > NAME_MAX:
        raise Malformed(f"a name of over {NAME_MAX} octets", "name_too_long")
    labels = name.split(".")
    if ":" in name or name.startswith("[") or _NUMBER.fullmatch(labels[-1]):
        raise Malformed(f"{text_untrusted!a:.80} is an address and no name", "name_is_address")
    if not all(map(_LABEL.fullmatch, labels)):
        raise Malformed(f"{text_untrusted!a:.80} is no host name", "not_a_name")
    return name


def host_name(text: str) -> str:
    """The name that a person wrote. Labels of other scripts become their A-labels, and an A-label must be that of some label.

    Raises `Malformed` as `wire_name` does, and with `name_idna` for what IDNA 2008 does not allow: nothing is mapped but the case of
    ASCII letters, so look-alikes of letters, digits and dots stay what they are or are refused.
    """
    if text.isascii() and "xn--" not in text.lower():
        return wire_name(text)
    if len(text) > NAME_MAX + 1:
        raise Malformed(f"a name of over {NAME_MAX} octets", "name_too_long")
    import idna  # tables of a quarter of a mebibyte, which few configurations need

    try:
        encoded = idna.encode(text.removesuffix(".").translate(_UPPER_TO_LOWER), strict=True).decode()
        idna.decode(encoded, strict=True)
    except (idna.IDNAError, UnicodeError) as error:
        raise Malformed(f"{text!a:.80} is no name of IDNA 2008: {error}", "name_idna") from None
    return wire_name(encoded)
