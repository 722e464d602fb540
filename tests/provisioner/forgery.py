"""Documents that a test signs itself, under a root that the bench trusts: right in everything but what the test makes wrong."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from runtime.protocol.measurements import CONFIG_PCR, KEY_PCR, config_commitment, extended_once, key_commitment
from tests.support import documents
from tests.support.documents import Plan, envelope, nitro_chain, payload, sign, write_chain
from tests.support.prov import CONFIG_DIGEST, IMAGE, Attempt


@dataclass(kw_only=True)
class Paper:
    """A document before it is written. `skew` is its age in seconds, negative; `alter_signature` and `finish` change the bytes."""

    attempt: Attempt
    fields: dict[str, Any]
    plans: tuple[Plan, ...] = field(default_factory=nitro_chain)
    skew: float = 0.0
    alter_signature: Callable[[bytes], bytes] = bytes
    finish: Callable[[bytes], bytes] = bytes

    @property
    def pcrs(self) -> dict[int, bytes]:
        """The registers, to be changed."""
        registers: dict[int, bytes] = self.fields["pcrs"]
        return registers

    def write(self) -> bytes:
        """The signed document, made at the bench's present time plus `skew`."""
        chain = write_chain(self.plans)
        made = int((self.attempt.bench.clock() + self.skew) * 1000)
        content = payload({"timestamp": made} | self.fields | {"certificate": chain[-1], "cabundle": list(chain[:-1])})
        return self.finish(envelope(content, signature=self.alter_signature(sign(content))))


def paper(attempt: Attempt) -> Paper:
    """The right document for what the attempt committed to (`Attempt.commit`), with the registers of the bench's enclave."""
    assert attempt.boot.key is not None
    registers = documents.pcrs() | dict(IMAGE)
    registers |= {
        CONFIG_PCR: extended_once(config_commitment(CONFIG_DIGEST, {})),
        KEY_PCR: extended_once(key_commitment(attempt.boot.key.public)),
    }
    asked = {"nonce": attempt.asked.nonce, "user_data": attempt.asked.user_data, "public_key": attempt.asked.public_key}
    fields = {name: value for name, value in documents.fields().items() if name != "timestamp"}
    return Paper(attempt=attempt, fields=fields | asked | {"pcrs": registers})


def flipped(data: bytes) -> bytes:
    """The same bytes with one bit changed in the middle."""
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)
