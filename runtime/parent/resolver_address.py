"""Where a resolver listens that parent.toml names."""

import re
from dataclasses import dataclass

from runtime.protocol.address_kind import Address, literal
from runtime.protocol.errors import Malformed

_WITH_PORT = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<v4>[0-9.]+)):(?P<port>[1-9][0-9]{0,4})")


@dataclass(frozen=True, slots=True)
class ResolverAddress:
    """An address and a port, of both UDP and TCP."""

    address: Address
    port: int = 53

    @classmethod
    def parse(cls, text: str) -> "ResolverAddress":
        """`10.0.0.2`, `10.0.0.2:5353`, `fd00::2`, `[fd00::2]:5353`. Raises ValueError that says what is wrong."""
        match = _WITH_PORT.fullmatch(text)
        host, port = (match["v6"] or match["v4"], int(match["port"])) if match else (text, 53)
        try:
            address = literal(host)
        except Malformed:
            raise ValueError(f"must be the address of a resolver, such as 10.0.0.2 or [fd00::2]:53: {text!r:.80}") from None
        if port > 65535:
            raise ValueError(f"must have a port from 1 to 65535: {text!r:.80}")
        return cls(address, port)

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"
