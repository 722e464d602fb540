"""The provisioner's keys on disk, one file each, private ones readable by their owner alone.

root.key root.pub          Ed25519, pinned in every enclave.toml; needed only to sign statements, so keep root.key offline
release.key .statement     Ed25519, signs releases; the statement is root.key's word for it
issuing-ca.key .pem        signs the TLS certificates of enclaves
server-ca.key .pem         signs this server's own certificate; server-ca.pem is `provisioner.ca` in enclave.toml
server.key .pem            this server's own certificate
"""

import base64
import errno
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from runtime.net.tls import TlsIdentity
from runtime.protocol.release import KeyStatement
from runtime.provisioner.ca import CertificateAuthority, create_authority

_STATEMENT_LIFETIME = timedelta(days=90)
_SERVER_LIFETIME = timedelta(days=365)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionerKeys:
    """What the running server needs; root.key is not among it."""

    release_key: Ed25519PrivateKey
    key_statement: bytes
    issuing_ca: CertificateAuthority
    server: TlsIdentity

    def __repr__(self) -> str:
        return "ProvisionerKeys(not shown)"


def create_keys(directory: Path, *, server_names: tuple[str, ...], now: datetime) -> None:
    """Makes all keys in a folder that has none. Raises `FileExistsError` when it has one of the files, and makes nothing then.

    A folder from which root.key was moved away is not one without keys: a second root key would be pinned by nobody.
    """
    root, release = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    issuing_ca = create_authority("Enclave Runtime issuing CA", now=now)
    server_ca = create_authority("Enclave Runtime provisioner CA", now=now)
    server_key = ec.generate_private_key(ec.SECP256R1())
    server = server_ca.issue(server_key.public_key(), server_names, now=now, lifetime=_SERVER_LIFETIME)
    files = {
        "root.key": _pem(root),
        "root.pub": f"{pinned_form(root)}\n".encode(),
        "release.key": _pem(release),
        "release.statement": make_statement(root, release, now=now),
        "issuing-ca.key": _pem(issuing_ca.key),
        "issuing-ca.pem": issuing_ca.certificate.public_bytes(Encoding.PEM),
        "server-ca.key": _pem(server_ca.key),
        "server-ca.pem": server_ca.certificate.public_bytes(Encoding.PEM),
        "server.key": _pem(server_key),
        "server.pem": server.public_bytes(Encoding.PEM),
    }
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in map(directory.joinpath, files):
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    for name, data in files.items():
        _write(directory / name, data, private=name.endswith(".key"))


def renew_statement(directory: Path, *, now: datetime) -> None:
    """Has root.key state for another 90 days that release.key is ours. Raises `OSError` or `ValueError`."""
    root, release = _load_ed25519(directory / "root.key"), _load_ed25519(directory / "release.key")
    fresh = directory / "release.statement.new"
    fresh.write_bytes(make_statement(root, release, now=now))
    fresh.replace(directory / "release.statement")


def load_keys(directory: Path) -> ProvisionerKeys:
    """The keys of a folder. Raises `OSError` for a missing file, `ValueError` for one that is not what its name says."""
    release_key = _load_ed25519(directory / "release.key")
    server_chain = tuple(x509.load_pem_x509_certificates((directory / "server.pem").read_bytes()))
    names = server_chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return ProvisionerKeys(
        release_key=release_key,
        key_statement=(directory / "release.statement").read_bytes(),
        issuing_ca=CertificateAuthority(
            certificate=x509.load_pem_x509_certificate((directory / "issuing-ca.pem").read_bytes()),
            key=_load_ec(directory / "issuing-ca.key"),
        ),
        server=TlsIdentity(
            names=tuple(names.get_values_for_type(x509.DNSName)), chain=server_chain, key=_load_ec(directory / "server.key")
        ),
    )


def make_statement(root: Ed25519PrivateKey, release: Ed25519PrivateKey, *, now: datetime) -> bytes:
    """The root key's statement for a release key, valid for 90 days from a day ago."""
    public_key = release.public_key().public_bytes_raw()
    begin = now - timedelta(days=1)
    return KeyStatement(
        kid=base64.b32encode(public_key[:10]).decode().lower(),
        public_key=public_key,
        not_before=int(begin.timestamp()),
        not_after=int((begin + _STATEMENT_LIFETIME).timestamp()),
    ).sign(root)


def pinned_form(root: Ed25519PrivateKey) -> str:
    """`ed25519:BASE64`, as `provisioner.keys` in enclave.toml has it."""
    return "ed25519:" + base64.b64encode(root.public_key().public_bytes_raw()).decode()


def _pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _load_private(path: Path) -> object:
    return load_pem_private_key(path.read_bytes(), None)


def _load_ed25519(path: Path) -> Ed25519PrivateKey:
    key = _load_private(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} is not an Ed25519 key")
    return key


def _load_ec(path: Path) -> ec.EllipticCurvePrivateKey:
    key = _load_private(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path} is not an EC key")
    return key


def _write(path: Path, data: bytes, *, private: bool) -> None:
    path.touch(mode=0o600 if private else 0o644, exist_ok=False)
    path.write_bytes(data)
