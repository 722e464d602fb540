"""`enclave verify` as a user meets it: files in, lines and an exit status out."""

import argparse
import json
import subprocess
import sys
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from runtime.commands.verify import add_parser
from runtime.protocol.document import parse_document
from tests.support import documents
from tests.support.vectors import FOLDER, document_bytes, vectors

PRODUCTION = "20260630-us-east-1-prod-277e236b.cbor"
DEBUG = "20210305-us-east-1-debug-883eaa6c.cbor"
MADE = "2026-06-30T00:33:40.694Z"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """verify ARGUMENTS -> (exit status, stdout, stderr)"""

    def verify(*arguments: object) -> tuple[int, str, str]:
        parser = argparse.ArgumentParser(prog="enclave")
        add_parser(parser.add_subparsers(required=True))
        try:
            parsed = parser.parse_args(["verify", *map(str, arguments)])
            status = parsed.handler(parsed)
        except SystemExit as stopped:
            status = stopped.code
        output = capsys.readouterr()
        return status, output.out, output.err

    return verify


def stored(folder: Path, content: bytes, name: str = "document") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def reference_of(folder: Path, name: str) -> Path:
    register = parse_document(document_bytes(name)).pcrs[0].hex()
    return stored(folder, json.dumps({"Measurements": {"PCR0": register}}).encode(), "reference.json")


def test_a_genuine_document_is_accepted_at_its_own_time_and_the_output_says_so(run: Any, tmp_path: Path) -> None:
    status, out, err = run(FOLDER / PRODUCTION, "--at", "document", "--reference", reference_of(tmp_path, PRODUCTION))
    assert (status, err) == (0, "")
    assert out.startswith("accepted  ")
    assert "the document's own time, which says nothing about today" in out
    assert "reference.json" in out
    assert "i-06f4d13c6679a7232-enc019f15f1504dc31d" in out


def test_the_same_document_is_refused_today(run: Any) -> None:
    status, out, _ = run(FOLDER / PRODUCTION, "--any-measurement")
    assert status == 1
    assert out.startswith("REFUSED  ")
    assert "certificate_expired" in out
    assert "document_stale" in out


def test_without_reference_values_the_refusal_says_what_to_do(run: Any) -> None:
    status, out, err = run(FOLDER / PRODUCTION, "--at", MADE)
    assert status == 1
    assert "reference_missing" in out
    assert "--reference FILE" in err
    assert "--any-measurement" in err


def test_one_json_object_a_file_holds_what_was_judged(run: Any) -> None:
    tampered = "20210909-us-west-1-tampered-15d4f223.cbor"
    foreign = "nodate-none-foreign-2196669a.cbor"
    paths = [FOLDER / name for name in (PRODUCTION, DEBUG, tampered, foreign)]
    status, out, err = run(*paths, "--at", "document", "--any-measurement", "--json")
    assert (status, err) == (1, "")
    good, debug, bad, other = map(json.loads, out.splitlines())
    document = parse_document(document_bytes(PRODUCTION))
    assert good == {
        "file": str(FOLDER / PRODUCTION),
        "accepted": True,
        "reasons": [],
        "mismatches": [],
        "judged_at": MADE,
        "module_id": "i-06f4d13c6679a7232-enc019f15f1504dc31d",
        "timestamp": MADE,
        "pcrs": {str(index): value.hex() for index, value in document.pcrs.items()},
        "debug": False,
        "reference": None,
        "user_data": (document.user_data or b"").hex(),
        "nonce": None,
        "public_key": (document.public_key or b"").hex(),
        "certificate_expires": "2026-06-30T03:32:47.000Z",
    }
    assert (debug["accepted"], debug["reasons"], debug["debug"]) == (False, ["debug_enclave"], True)
    assert set(bad["reasons"]) == {"debug_enclave", "signature_invalid"}
    assert set(bad["mismatches"][0]) == {"code", "detail", "expected", "actual"}
    assert other["reasons"] == ["payload_key"]
    assert other["module_id"] is other["pcrs"] is other["debug"] is other["certificate_expires"] is None


@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: vector.file)
def test_every_vector_has_the_exit_status_of_its_verdict(run: Any, vector: Any) -> None:
    status, _, _ = run(FOLDER / vector.file, "--at", "document", "--any-measurement", "--allow-debug", "--json")
    assert status == (0 if vector.accepted else 1)


@pytest.mark.parametrize(
    "encode",
    [
        pytest.param(b64encode, id="base64"),
        pytest.param(urlsafe_b64encode, id="base64 for urls"),
        pytest.param(lambda data: urlsafe_b64encode(data).rstrip(b"="), id="base64 without padding"),
        pytest.param(
            lambda data: b"\n".join(b64encode(data)[i : i + 76] for i in range(0, 9999, 76)) + b"\n", id="base64 in lines"
        ),
        pytest.param(lambda data: data.hex().encode(), id="hex"),
        pytest.param(lambda data: b" " + data.hex(" ").upper().encode() + b"\r\n", id="hex in pairs"),
        pytest.param(lambda data: b"\xd2" + data, id="tagged"),
        pytest.param(lambda data: b64encode(b"\xd2" + data), id="tagged base64"),
    ],
)
@pytest.mark.parametrize("name", [PRODUCTION, DEBUG])
def test_a_document_may_come_in_any_usual_form(run: Any, tmp_path: Path, encode: Any, name: str) -> None:
    path = stored(tmp_path, encode(document_bytes(name)))
    assert run(path, "--at", "document", "--any-measurement", "--allow-debug")[0] == 0


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x00\xff", b"zzzz====", b"8", b"\xd2", b"\x84" * 2_000_000, b"QUJD" * 400_000]
)
def test_a_file_that_holds_no_document_is_refused(run: Any, tmp_path: Path, content: bytes) -> None:
    status, out, err = run(stored(tmp_path, content), "--any-measurement")
    assert status == 1
    assert out.startswith("REFUSED  ")
    assert "Traceback" not in err


def test_an_own_root_replaces_that_of_aws(run: Any, tmp_path: Path) -> None:
    own = stored(tmp_path, documents.document())
    pem = documents.trusted_root().public_bytes(Encoding.PEM)
    aws = (FOLDER / "aws-nitro-root-g1.pem").read_bytes()
    root = stored(tmp_path, pem, "root.pem")
    both = stored(tmp_path, aws + pem, "both.pem")
    asked = ("--at", "document", "--any-measurement")
    assert run(own, *asked)[0] == 1
    assert run(own, *asked, "--root", root)[0] == 0
    assert run(FOLDER / PRODUCTION, *asked, "--root", root)[0] == 1
    assert run(own, FOLDER / PRODUCTION, *asked, "--root", both)[0] == 0


def test_a_nonce_must_be_the_documents(run: Any, tmp_path: Path) -> None:
    own = stored(tmp_path, documents.document())
    root = stored(tmp_path, documents.trusted_root().public_bytes(Encoding.PEM), "root.pem")
    asked = (own, "--at", "document", "--any-measurement", "--root", root, "--json", "--nonce")
    assert run(*asked, documents.NONCE.hex())[0] == 0
    status, out, _ = run(*asked, "00" * 32)
    assert status == 1
    assert json.loads(out)["reasons"] == ["nonce_mismatch"]


@pytest.mark.parametrize(
    ("moment", "status"),
    [("2026-06-30T00:33:41Z", 0), ("2026-06-30t02:33:41+02:00", 0), ("2026-06-30 00:33:41.5z", 0), ("2026-06-30T01:33:41Z", 1)],
)
def test_a_moment_may_be_asked_for_and_the_usual_age_holds(run: Any, moment: str, status: int) -> None:
    assert run(FOLDER / PRODUCTION, "--any-measurement", "--at", moment)[0] == status


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="no file"),
        pytest.param(("no-such-file",), id="a missing file"),
        pytest.param(("/",), id="a folder"),
        pytest.param(("a\0b",), id="a name that no file can have"),
        pytest.param((FOLDER / PRODUCTION, "no-such-file"), id="one missing file of two"),
        pytest.param((FOLDER / PRODUCTION, "--nonce", "xyz"), id="a nonce that is not hex"),
        pytest.param((FOLDER / PRODUCTION, "--nonce", "abc"), id="a nonce of an odd length"),
        pytest.param((FOLDER / PRODUCTION, "--nonce", ""), id="an empty nonce"),
        pytest.param((FOLDER / PRODUCTION, "--nonce", "é0"), id="a nonce in other letters"),
        pytest.param((FOLDER / PRODUCTION, "--at", "yesterday"), id="a time in words"),
        pytest.param((FOLDER / PRODUCTION, "--at", "2026-06-30T00:33:41"), id="a time without a zone"),
        pytest.param((FOLDER / PRODUCTION, "--at", "2026-06-31T00:33:41Z"), id="a day that no calendar has"),
        pytest.param((FOLDER / PRODUCTION, "--at", "0001-01-01T00:00:00+14:00"), id="a time before every calendar"),
        pytest.param((FOLDER / PRODUCTION, "--root", FOLDER / "README.md"), id="a root that is not PEM"),
        pytest.param((FOLDER / PRODUCTION, "--root", "no-such-file"), id="a missing root"),
        pytest.param((FOLDER / PRODUCTION, "--reference", FOLDER / "README.md"), id="a reference that is not one"),
        pytest.param((FOLDER / PRODUCTION, "--reference", FOLDER / PRODUCTION), id="a reference that is not text"),
        pytest.param((FOLDER / PRODUCTION, "--reference", "no-such-file"), id="a missing reference"),
        pytest.param((FOLDER / PRODUCTION, "--reference", "x", "--any-measurement"), id="a reference and any measurement"),
    ],
)
def test_a_mistake_of_the_user_is_status_2_and_a_clear_line(run: Any, arguments: tuple[object, ...]) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].startswith("enclave verify: ")
    assert "Traceback" not in err


def test_nothing_of_a_document_can_drive_the_terminal(run: Any, tmp_path: Path) -> None:
    hostile = "i-\x1b[2J\x07\u202eenc"
    strange: dict[str, Any] = {"module_id": hostile, "evil\x1b[31m": 1}
    own = stored(tmp_path, documents.document(**strange), "unread")
    read = stored(tmp_path, documents.document(module_id=hostile), "read")
    _, out, err = run(own, read, "--any-measurement")
    _, json_out, _ = run(own, read, "--any-measurement", "--json")
    assert all(line.isprintable() for line in (out + err + json_out).splitlines())


def test_a_file_name_that_is_no_text_is_shown_escaped(run: Any, tmp_path: Path) -> None:
    path = stored(tmp_path, document_bytes(PRODUCTION), "caf\udce9\n")
    status, out, _ = run(path, "--at", "document", "--any-measurement")
    assert status == 0
    assert "caf\\udce9\\n" in out.splitlines()[0]
    assert "caf\\udce9" in run(str(path) + "x")[2]


def test_the_command_starts_without_trio() -> None:
    program = "import sys, runtime.commands.verify; sys.exit('trio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
