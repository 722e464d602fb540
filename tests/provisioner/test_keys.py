"""The provisioner's keys on disk: made once and never over others, private ones for their owner alone, and each what its name says."""

import base64
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from runtime.protocol.errors import Refused
from runtime.protocol.release import KeyStatement
from runtime.provisioner.keys import create_keys, load_keys, make_statement, pinned_form, renew_statement
from tests.support.prov import NOW, ground

PRIVATE = {"root.key", "release.key", "issuing-ca.key", "server-ca.key", "server.key"}
PUBLIC = {"root.pub", "release.statement", "issuing-ca.pem", "server-ca.pem", "server.pem"}
UNIX = int(NOW.timestamp())
DAY = 86_400


def made(folder: Path) -> Path:
    create_keys(folder, server_names=("provisioner.example.com", "localhost"), now=NOW)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def pinned(folder: Path) -> bytes:
    """The root key as an enclave would pin it, from root.pub."""
    kind, _, encoded = (folder / "root.pub").read_text().strip().partition(":")
    assert kind == "ed25519"
    return base64.b64decode(encoded, validate=True)


def private(path: Path) -> object:
    return load_pem_private_key(path.read_bytes(), None)


def pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_all_keys_are_made_and_private_ones_are_their_owners_alone(tmp_path: Path) -> None:
    folder = made(tmp_path / "state")
    assert set(contents(folder)) == PRIVATE | PUBLIC
    modes = {name: stat.S_IMODE((folder / name).stat().st_mode) for name in PRIVATE}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_no_two_of_the_keys_are_one_key(tmp_path: Path) -> None:
    folder = made(tmp_path / "state")
    assert len({(folder / name).read_bytes() for name in PRIVATE}) == len(PRIVATE)


@pytest.mark.parametrize("kept", sorted(PRIVATE | PUBLIC))
def test_where_any_of_the_files_is_there_already_nothing_is_made_and_nothing_changed(tmp_path: Path, kept: str) -> None:
    """root.key, above all, is kept elsewhere: a folder without it is not a folder without keys."""
    folder = made(tmp_path / "state")
    for path in folder.iterdir():
        if path.name != kept:
            path.unlink()
    before = contents(folder)
    with pytest.raises(FileExistsError) as refused:
        made(folder)
    assert refused.value.filename == str(folder / kept)
    assert contents(folder) == before


def test_the_keys_that_a_server_loads_are_those_that_were_made(tmp_path: Path) -> None:
    folder = made(tmp_path / "state")
    keys = load_keys(folder)
    statement = KeyStatement.open(keys.key_statement, (pinned(folder),), now=UNIX)
    assert statement.public_key == keys.release_key.public_key().public_bytes_raw()
    assert keys.server.names == ("provisioner.example.com", "localhost")
    keys.server.chain[0].verify_directly_issued_by(x509.load_pem_x509_certificate((folder / "server-ca.pem").read_bytes()))
    assert keys.issuing_ca.certificate.public_key() == keys.issuing_ca.key.public_key()
    assert keys.issuing_ca.certificate != x509.load_pem_x509_certificate((folder / "server-ca.pem").read_bytes())
    assert "not shown" in repr(keys)
    assert "PrivateKey" not in repr(keys)


def test_a_server_needs_neither_the_root_key_nor_the_key_of_its_own_ca(tmp_path: Path) -> None:
    folder = made(tmp_path / "state")
    (folder / "root.key").unlink()
    (folder / "server-ca.key").unlink()
    assert load_keys(folder).key_statement == (folder / "release.statement").read_bytes()


@pytest.mark.parametrize("missing", sorted((PRIVATE | PUBLIC) - {"root.key", "root.pub", "server-ca.key", "server-ca.pem"}))
def test_a_missing_file_is_said_by_its_name(tmp_path: Path, missing: str) -> None:
    folder = made(tmp_path / "state")
    (folder / missing).unlink()
    with pytest.raises(FileNotFoundError) as refused:
        load_keys(folder)
    assert refused.value.filename is not None
    assert Path(refused.value.filename).name == missing


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("release.key", pem(ec.generate_private_key(ec.SECP256R1()))),
        ("issuing-ca.key", pem(Ed25519PrivateKey.generate())),
        ("server.key", pem(Ed25519PrivateKey.generate())),
        ("release.key", b""),
        ("issuing-ca.pem", b"-----BEGIN CERTIFICATE-----"),
        ("server.pem", b"no certificate"),
        ("server.key", b"no key"),
    ],
    ids=["release.key of EC", "issuing-ca.key of Ed25519", "server.key of Ed25519", "empty", "cut PEM", "no certificate", "no key"],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    folder = made(tmp_path / "state")
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError):
        load_keys(folder)


# Statements


def test_a_statement_holds_from_a_day_ago_for_ninety_days() -> None:
    root, release = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    statement, own = make_statement(root, release, now=NOW), root.public_key().public_bytes_raw()
    for now in (UNIX - DAY, UNIX, UNIX + 89 * DAY):
        opened = KeyStatement.open(statement, (own,), now=now)
        assert opened.public_key == release.public_key().public_bytes_raw()
    for now in (UNIX - DAY - 1, UNIX + 89 * DAY + 1):
        with pytest.raises(Refused) as refused:
            KeyStatement.open(statement, (own,), now=now)
        assert refused.value.reason == "key_not_valid_now"
    with pytest.raises(Refused):
        KeyStatement.open(statement, (ground().pinned,), now=UNIX)


def test_the_name_of_a_release_key_is_its_own() -> None:
    root, keys = Ed25519PrivateKey.generate(), [Ed25519PrivateKey.generate() for _ in range(3)]
    opened = [
        KeyStatement.open(make_statement(root, key, now=NOW), (root.public_key().public_bytes_raw(),), now=UNIX) for key in keys
    ]
    assert len({statement.kid for statement in opened}) == 3
    again = KeyStatement.open(make_statement(root, keys[0], now=NOW), (root.public_key().public_bytes_raw(),), now=UNIX)
    assert again.kid == opened[0].kid


def test_the_pinned_form_is_the_raw_key_in_base64() -> None:
    key = Ed25519PrivateKey.generate()
    assert base64.b64decode(pinned_form(key).removeprefix("ed25519:"), validate=True) == key.public_key().public_bytes_raw()


def test_a_renewed_statement_is_for_the_same_key_and_for_longer(tmp_path: Path) -> None:
    folder = made(tmp_path / "state")
    before = contents(folder)
    later = NOW + timedelta(days=80)
    renew_statement(folder, now=later)
    after = contents(folder)
    assert {name for name in after if after[name] != before.get(name)} == {"release.statement"}
    assert set(after) == set(before)
    opened = KeyStatement.open(after["release.statement"], (pinned(folder),), now=UNIX + 160 * DAY)
    release_key = private(folder / "release.key")
    assert isinstance(release_key, Ed25519PrivateKey)
    assert opened.public_key == release_key.public_key().public_bytes_raw()


def test_without_the_root_key_no_statement_is_renewed(tmp_path: Path) -> None:
    folder = made(tmp_path / "state")
    (folder / "root.key").unlink()
    before = contents(folder)
    with pytest.raises(FileNotFoundError):
        renew_statement(folder, now=NOW)
    (folder / "root.key").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(ValueError):
        renew_statement(folder, now=NOW)
    (folder / "root.key").unlink()
    assert contents(folder) == before
