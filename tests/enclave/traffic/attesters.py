"""An attester whose documents say what they were asked to commit to, and that can be slow, stalled or unwilling."""

from dataclasses import dataclass

import trio

from runtime.enclave.identity.nsm import NsmError
from runtime.protocol import cbor


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    nonce: bytes | None
    user_data: bytes | None
    public_key: bytes | None


class ScriptedAttester:
    """One document at a time, like the device. `takes` is seconds for each; `fails` a reason to fail with."""

    def __init__(self, *, takes: float = 0.0) -> None:
        self.takes = takes
        self.fails: str | None = None
        self.asked: list[Asked] = []
        self._turn = trio.Lock()

    async def attest(self, *, nonce: bytes | None, user_data: bytes | None, public_key: bytes | None) -> bytes:
        async with self._turn:
            self.asked.append(Asked(nonce=nonce, user_data=user_data, public_key=public_key))
            await trio.sleep(self.takes)
            if self.fails is not None:
                raise NsmError(self.fails, "as the test wants it")
            return cbor.encode([len(self.asked), nonce, user_data, public_key])


def document_fields(document: bytes) -> Asked:
    """What a document of `ScriptedAttester` commits to."""
    match cbor.decode(document):
        case [int(), nonce, user_data, public_key]:
            assert nonce is None or isinstance(nonce, bytes)
            assert user_data is None or isinstance(user_data, bytes)
            assert public_key is None or isinstance(public_key, bytes)
            return Asked(nonce=nonce, user_data=user_data, public_key=public_key)
        case other:
            raise AssertionError(f"no document: {other!r}")
