"""`enclave registry`: records in and out, secrets in and never out, and one line for every mistake before it is kept."""

import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from runtime.protocol.binding import spki_digest
from runtime.protocol.bundle import Secret, SecretValue
from runtime.provisioner.records import EnclaveRecord
from tests.commands.provisioner_folder import SECRET, Folder


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Folder:
    return Folder(tmp_path, capsys)


def kept(folder: Folder, name: str) -> EnclaveRecord | None:
    store = folder.store()
    try:
        return store.record(name)
    finally:
        store.close()


def is_told(text: str) -> bool:
    return any(form in text for form in (SECRET.decode(), SECRET.decode()[:12], SECRET.hex()))


def test_a_record_is_kept_as_it_was_described(folder: Folder) -> None:
    file = folder.write("key.bin", b"\0\1\2")
    done = folder.add(
        "payments-prod",
        *("--parent", folder.parent, "--name", "pay.example.com", "--name", "WWW.pay.example.com"),
        *("--role", "arn:aws:iam::123456789012:role/enclave", "--epoch-floor", "3", "--epoch", "7"),
        *("--secret-env", f"API_KEY={folder.secret}", "--secret-file", f"SIGNING_KEY={file}"),
        *("--address", "192.0.2.7", "--address", "2001:DB8::7", "--address", "::ffff:192.0.2.8", "--strict-source-ip"),
        *("--instance", "i-0123456789abcdef0", "--instance", "i-01234567"),
        *("--host-parameter", "zone=a=b", "--channel", "none", "--lease-quota", "4", "--renew-after", "3600"),
    )
    assert (done.status, done.err) == (0, "")
    assert done.out == "payments-prod: 1 measurements, 2 secrets, 1 parents\n"
    record = kept(folder, "payments-prod")
    assert record is not None
    key = x509.load_pem_x509_certificate(Path(folder.parent).read_bytes()).public_key()
    assert record.parents == (spki_digest(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hex(),)
    assert record.names == ("pay.example.com", "www.pay.example.com")
    assert record.roles == ("arn:aws:iam::123456789012:role/enclave",)
    assert (record.epoch_floor, record.lease_quota, record.renew_after_seconds, record.channel) == (3, 4, 3600, "none")
    assert (record.addresses, record.strict_source_ip) == (("192.0.2.7", "2001:db8::7", "192.0.2.8"), True)
    assert record.instances == ("i-0123456789abcdef0", "i-01234567")
    assert record.host_parameters == {"zone": "a=b"}
    assert [(each.epoch, each.pcrs) for each in record.reference.measurements] == [(7, {0: b"\x01" * 48})]
    assert record.secrets == {
        "API_KEY": Secret(delivery="env", value=SecretValue(SECRET)),  # without the line feed that ends the file
        "SIGNING_KEY": Secret(delivery="file", value=SecretValue(b"\0\1\2"), file_name="key.bin"),
    }


def test_what_is_not_said_allows_nothing_but_any_instance(folder: Folder) -> None:
    done = folder.add("bare")
    assert (done.status, done.err) == (0, "no --parent: nobody can fetch a ticket for it yet\n")
    record = kept(folder, "bare")
    assert record is not None
    assert (record.parents, record.names, record.addresses, record.secrets) == ((), (), (), {})
    assert (record.roles, record.channel, record.status) == (("none",), "exporter", "active")
    assert record.instances is None


def test_a_record_is_replaced_only_on_request_and_then_as_a_whole(folder: Folder) -> None:
    folder.add("a", "--parent", folder.parent, "--secret-env", f"A={folder.secret}")
    refused = folder.add("a")
    assert (refused.status, refused.out) == (1, "")
    assert "--replace" in refused.err
    before = kept(folder, "a")
    assert before is not None
    assert before.secrets
    assert folder.add("a", "--replace").status == 0
    after = kept(folder, "a")
    assert after is not None
    assert (after.secrets, after.parents) == ({}, ())


def test_records_are_listed_in_order_and_shown_whole(folder: Folder) -> None:
    empty = folder.registry("list")
    assert (empty.status, empty.out, empty.err) == (0, "", "no records\n")
    for name in ("beta", "alpha"):
        folder.add(name, "--parent", folder.parent)
    folder.registry("revoke", "beta")
    lines = folder.registry("list").out.splitlines()
    assert [line.split() for line in lines] == [["alpha", "active", "reference.json"], ["beta", "revoked", "reference.json"]]
    assert [entry["enclave_id"] for entry in json.loads(folder.registry("list", "--json").out)] == ["alpha", "beta"]
    shown = folder.registry("show", "alpha")
    assert (shown.status, shown.err) == (0, "")
    assert shown.out.splitlines()[0].split()[0] == "addresses"
    assert "01" * 48 in shown.out
    record = json.loads(folder.registry("show", "alpha", "--json").out)
    assert (record["enclave_id"], record["status"], record["channel"]) == ("alpha", "active", "exporter")


def test_secrets_are_never_printed(folder: Folder) -> None:
    ran = [
        folder.add("a", "--secret-env", f"API_KEY={folder.secret}", "--secret-file", f"FILE={folder.secret}"),
        folder.registry("list"),
        folder.registry("list", "--json"),
        folder.registry("show", "a"),
        folder.registry("show", "a", "--json"),
        folder.registry("revoke", "a"),
        folder.audit(),
        folder.audit("--json"),
    ]
    assert [each.status for each in ran] == [0] * len(ran)
    assert not any(is_told(each.out + each.err) for each in ran)
    assert json.loads(ran[4].out)["secrets"] == {"API_KEY": "env", "FILE": "file"}


def test_a_revoked_record_stays_with_all_that_it_had(folder: Folder) -> None:
    folder.add("a", "--parent", folder.parent, "--secret-env", f"A={folder.secret}")
    before = kept(folder, "a")
    done = folder.registry("revoke", "a")
    assert (done.status, done.out, done.err) == (0, "a: revoked\n", "")
    after = kept(folder, "a")
    assert before is not None
    assert after is not None
    assert (after.status, after.secrets, after.parents) == ("revoked", before.secrets, before.parents)
    assert folder.registry("revoke", "a").status == 0


@pytest.mark.parametrize("action", ["show", "revoke"])
def test_a_record_that_is_not_there_is_said_so(folder: Folder, action: str) -> None:
    folder.add("a")
    ran = folder.registry(action, "b")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == "enclave registry: no record 'b'; `enclave registry list` shows what there is\n"


def test_every_change_is_audited(folder: Folder) -> None:
    folder.add("a")
    folder.add("a", "--replace")
    folder.registry("revoke", "a")
    entries = [json.loads(line) for line in folder.audit("--json").out.splitlines()]
    assert [(entry["event"], entry["enclave_id"], entry["change"]) for entry in entries] == [
        ("registry", "a", "added"),
        ("registry", "a", "replaced"),
        ("registry", "a", "revoked"),
    ]


MISTAKES = {
    "no such reference": (("--reference", "absent.json"), "absent.json: No such file or directory"),
    "a reference that is none": (("--reference", "{secret}"), "secret.txt"),
    "no such parent": (("--parent", "absent.pem"), "absent.pem: No such file or directory"),
    "a parent that is none": (("--parent", "{secret}"), "no PEM certificate that can be read"),
    "a secret without a name": (("--secret-env", "={secret}"), "NAME=FILE expected"),
    "a secret without a file": (("--secret-env", "A="), "NAME=FILE expected"),
    "a secret on the command line": (("--secret-env", "A"), "NAME=FILE expected"),
    "no such secret": (("--secret-file", "A=absent"), "absent: No such file or directory"),
    "a folder for a secret": (("--secret-file", "A=."), "Is a directory"),
    "a variable with a NUL": (("--secret-env", "A={binary}"), "use --secret-file"),
    "a secret's name too long": (("--secret-env", "A" * 129 + "={secret}"), "no enclave would take these secrets"),
    "one name for two secrets": (("--secret-env", "A={secret}", "--secret-file", "A={secret}"), "two secrets have one name"),
    "a secret larger than it is read": (("--secret-file", "A={huge}"), "a secret has less than"),
    "secrets larger than a release": (("--secret-file", "A={large}", "--secret-file", "B={large}"), "bytes of a release"),
    "a name that is none": (("--name", "pay_example!"), "--name 'pay_example!'"),
    "a name that is no ASCII": (("--name", "p\xe4y.example.com"), "--name"),
    "an empty name": (("--name", ""), "--name ''"),
    "an address for a name": (("--name", "192.0.2.7"), "must be a DNS name"),
    "an address that is none": (("--address", "192.0.2"), "--address '192.0.2'"),
    "an instance that is none": (("--instance", "i-0123456"), "--instance 'i-0123456'"),
    "an instance in capitals": (("--instance", "i-0123456789ABCDEF0"), "8 to 17 hexadecimal digits"),
    "a negative epoch": (("--epoch", "-1"), "--epoch must be from 0 to 4294967295"),
    "an epoch too large": (("--epoch", "4294967296"), "--epoch must be from 0"),
    "a negative floor": (("--epoch-floor", "-1"), "--epoch-floor must be from 0"),
    "no lease at all": (("--lease-quota", "0"), "--lease-quota must be from 1"),
    "a renewal every moment": (("--renew-after", "59"), "--renew-after must be from 60"),
    "a renewal after the lease": (("--renew-after", "86400"), "--renew-after must be from 60"),
    "a quota without bound": (("--lease-quota", str(10**20)), "--lease-quota must be from 1"),
    "a parameter without a value": (("--host-parameter", "zone"), "NAME=VALUE expected"),
    "a parameter without a name": (("--host-parameter", "=a"), "NAME=VALUE expected"),
    "a parameter that is no text": (("--host-parameter", "zone=\udcff"), "must be printable text"),
    "an empty role": (("--role", ""), "must be printable text"),
    "a role that is no text": (("--role", "arn:\udcff"), "must be printable text"),
    "a secret's name that is no text": (("--secret-env", "A\udcff={secret}"), "no enclave would take these secrets"),
}


@pytest.mark.parametrize(("words", "said"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_is_one_line_and_nothing_is_kept(folder: Folder, words: tuple[str, ...], said: str) -> None:
    files = {
        "secret": folder.secret,
        "binary": folder.write("binary", b"a\0b"),
        "large": folder.write("large", bytes(600_000)),
        "huge": folder.write("huge", bytes(2_000_000)),
    }
    refused = folder.add("a", *(word.format(**files) for word in words)).refusal
    assert refused.startswith("enclave registry: ")
    assert said in refused
    assert not is_told(refused)
    assert kept(folder, "a") is None
    assert folder.registry("list").err == "no records\n"


@pytest.mark.parametrize("name", ["", "x" * 129, "\udcff"], ids=["empty", "long", "no text"])
def test_an_id_that_no_parent_could_ask_for_is_refused(folder: Folder, name: str) -> None:
    assert folder.add(name).refusal == "enclave registry: an ID has 1 to 128 characters"


def test_words_that_are_no_options_are_a_usage_error(folder: Folder) -> None:
    for words in (("list", "--no-such"), ("remove", "a"), (), ("add",), ("add", "a"), ("show",)):
        ran = folder.registry(*words)
        assert (ran.status, ran.out) == (2, "")
        assert "usage: " in ran.err


@pytest.mark.parametrize("words", [("list",), ("show", "a"), ("revoke", "a")], ids=lambda words: words[0])
def test_a_config_or_a_database_that_cannot_be_used_is_one_line(folder: Folder, words: tuple[str, ...]) -> None:
    absent = folder.run("registry", "-c", str(folder.path / "absent.toml"), *words).refusal
    assert absent == f"enclave registry: {folder.path}/absent.toml: No such file or directory"
    folder.write("state/store.db", b"this is no database, and it is long enough to be seen as none" * 20)
    assert "the database cannot be used" in folder.registry(*words).refusal
    wrong = folder.write("wrong.toml", b"version = 2\n")
    ran = folder.run("registry", "-c", wrong, *words)
    assert (ran.status, ran.out) == (2, "")
    assert f"{wrong}:1: version: must be from 1 to 1" in ran.err
    assert "Traceback" not in ran.err


def test_the_database_is_its_owners_alone(folder: Folder) -> None:
    folder.add("a", "--secret-env", f"A={folder.secret}")
    assert {path.stat().st_mode & 0o077 for path in (folder.path / "state").iterdir()} == {0}
