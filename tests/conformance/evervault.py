"""Evervault's published client library (PyPI `evervault-attestation-bindings`): what it says of real documents, and of those of our path.

Its clients read `{"attestation_doc": "<base64>"}` as ours do, believe AWS's root alone, and ask that a document's user_data is the key of
the server's certificate, byte for byte. Ours is a binding of more than that (PROTOCOL 3.1), under a name of its own: they refuse it.
"""

import base64
import json
import os
import subprocess
import tempfile
import tomllib
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trio
from cryptography.hazmat.primitives.serialization import Encoding

from runtime.enclave.traffic.public_evidence import DEFAULT_PATH, PublicEvidence
from runtime.net.clock import utc_now
from runtime.net.http import Request
from runtime.net.tls import TlsIdentity
from runtime.protocol.nsm import Attest, Attested, decode_response, encode_request
from runtime.simulator.nsm import SimulatedNsm
from runtime.simulator.pki import make_root
from tests.conformance.outcome import Check
from tests.support.certificates import make_ca

VECTORS = Path(__file__).parents[1] / "vectors" / "attestation"
_ASK = (
    "import sys, pathlib, evervault_attestation_bindings as theirs\n"
    "certificate, document = (pathlib.Path(name).read_bytes() for name in sys.argv[1:])\n"
    "try: print(theirs.attest_enclave(certificate, [], document))\n"
    "except ValueError as error: print(error)\n"
)
_ANY = "cert-797f0790.der"
_MODULE = "i-0123456789abcdef0-enc0123456789abcdef"


class Module:
    """An attester on a simulated module, whose root is nobody's: no real one can be had outside of an enclave."""

    def __init__(self) -> None:
        now = utc_now()
        self._nsm = SimulatedNsm(
            make_root(now=now - timedelta(days=1)),
            module_id=_MODULE,
            pcrs={index: bytes((index + 1,)) * 48 for index in (0, 1, 2, 3, 8)},
            now=utc_now,
        )

    async def attest(self, *, nonce: bytes | None, user_data: bytes | None, public_key: bytes | None) -> bytes:
        """As `Attester`."""
        asked = Attest(nonce=nonce, user_data=user_data, public_key=public_key)
        answer = decode_response(self._nsm.handle(encode_request(asked)))
        assert isinstance(answer, Attested)
        return answer.document


class Connection:
    """What evidence asks of a client's connection."""

    def __init__(self, identity: TlsIdentity) -> None:
        self.own_certificate = identity.chain[0]

    def exporter(self, label: bytes, context: bytes, size: int = 32) -> bytes:
        """As `TlsConnection`."""
        return bytes(size)


def judge(python: Path, faketime: str) -> list[Check]:
    """Real documents at their own time, those that name a key with their certificate; then one that our path gives."""
    documents = tomllib.loads((VECTORS / "manifest.toml").read_text())["vector"]
    bound = {
        name: each["certificate"]
        for each in tomllib.loads((VECTORS / "binding.toml").read_text())["binding"]
        for name in each["documents"]
    }
    said = {
        each["file"]: _ask(python, VECTORS / bound.get(each["file"], _ANY), VECTORS / each["file"], faketime, _moment(each))
        for each in documents
    }
    false = [each["file"] for each in documents if each["verdict_at_timestamp"] == "reject"]
    others = [name for name in said if name not in bound and name not in false]
    certificate, document = trio.run(evidence)
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder) / "certificate", Path(folder) / "document"
        for path, data in zip(paths, (certificate, document), strict=True):
            path.write_bytes(data)
        ours = _ask(python, *paths)
    return [
        _check("documents that name their certificate's key", {name: said[name] for name in bound}, accepted=len(bound)),
        _check("documents that are none of an enclave's", {name: said[name] for name in false}, accepted=0),
        _check("documents that name no certificate's key", {name: said[name] for name in others}, accepted=0),
        _check("the document of our path", {"ours": ours}, accepted=0),
    ]


async def evidence() -> tuple[bytes, bytes]:
    """(certificate, document) as a client of the public port has them: the document out of the JSON."""
    identity = make_ca("conformance", utc_now()).issue(("conformance.test",))
    public = PublicEvidence(Module(), config_digest=bytes(48))
    request = Request(method="GET", path=DEFAULT_PATH, query="", headers=(), body=b"")
    answer = await public.answer(request, client="192.0.2.1", connection=Connection(identity))
    document = base64.b64decode(json.loads(answer.body)["attestation_doc"], validate=True)
    return identity.chain[0].public_bytes(Encoding.DER), document


def _check(name: str, said: dict[str, str], *, accepted: int) -> Check:
    verdicts = Counter(said.values())
    return Check(
        name=name,
        passed=verdicts["True"] == accepted,
        found=f"{verdicts['True']} of {len(said)} accepted",
        asked=str(accepted),
        notes=tuple(f"{count}: {text}" for text, count in verdicts.most_common() if text != "True"),
    )


def _moment(vector: dict[str, object]) -> datetime:
    milliseconds = vector.get("timestamp_ms", 0)
    assert isinstance(milliseconds, int)
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _ask(python: Path, certificate: Path, document: Path, faketime: str = "", moment: datetime | None = None) -> str:
    """What it says: "True", or why not. With a `moment` that is the time for it."""
    command = [str(python), "-c", _ASK, str(certificate), str(document)]
    if moment is not None:
        command = [faketime, moment.strftime("%Y-%m-%d %H:%M:%S"), *command]
    finished = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TZ": "UTC"}, timeout=60, check=False)
    words = finished.stdout.strip() or finished.stderr.strip()[-200:]
    return words.removeprefix("An error occurred while attesting the connection received: ")
