"""The record that `enclave registry add` registers: what an operator wrote, checked as the server and the enclave will read it.

A record that cannot be used is refused here in one line, and not by a server that reads it while an enclave waits.
"""

import argparse
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from runtime.commands.inputs import FILE_MAX, Unusable, read_certificates, read_file, read_reference
from runtime.enclave.config_values import dns_name
from runtime.net.buckets import plain_address
from runtime.protocol.binding import spki_digest
from runtime.protocol.bundle import BUNDLE_MAX, Bundle, Delivery, Secret, SecretValue
from runtime.protocol.cbor import MESSAGE_MAX
from runtime.protocol.errors import LocalProtocolError, Malformed
from runtime.protocol.messages import TicketRequest
from runtime.provisioner.records import NO_ROLE, EnclaveRecord
from runtime.verifier.reference import ReferenceValues

LEASE_QUOTA_MAX = 1_000_000
_INSTANCE = re.compile(r"i-[0-9a-f]{8,17}")
_EPOCH_MAX = 2**32 - 1
_RENEW_AFTER_LEAST, _RENEW_AFTER_MOST = 60, 22 * 3600  # two hours of the lease are left for attempts that fail
_CERTIFICATES_ROOM = 4 * MESSAGE_MAX  # what a release must have room for besides the secrets

T = TypeVar("T")


def record_of(arguments: argparse.Namespace) -> EnclaveRecord:
    """The record that the options of `add` describe. Raises `Unusable`."""
    return EnclaveRecord(
        enclave_id=_enclave_id(arguments.id),
        reference=_reference(arguments),
        parents=tuple(_key_digest(name) for name in arguments.parent),
        names=tuple(_valid("--name", dns_name, name) for name in arguments.name),
        roles=tuple(_valid("--role", _printable, role) for role in arguments.role) or (NO_ROLE,),
        epoch_floor=_bounded("--epoch-floor", arguments.epoch_floor, 0, _EPOCH_MAX),
        instances=_instances(arguments.instance),
        addresses=tuple(plain_address(str(_valid("--address", ip_address, address))) for address in arguments.address),
        strict_source_ip=arguments.strict_source_ip,
        host_parameters=dict(_pair(entry) for entry in arguments.host_parameter),
        channel=arguments.channel,
        renew_after_seconds=_bounded("--renew-after", arguments.renew_after, _RENEW_AFTER_LEAST, _RENEW_AFTER_MOST),
        lease_quota=_bounded("--lease-quota", arguments.lease_quota, 1, LEASE_QUOTA_MAX),
        secrets=_secrets(arguments),
    )


def _valid(option: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise Unusable(f"{option} {text!a}: {error}") from None


def _printable(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("must be printable text")
    return text


def _bounded(option: str, number: int, least: int, most: int) -> int:
    if not least <= number <= most:
        raise Unusable(f"{option} must be from {least} to {most}")
    return number


def _enclave_id(text: str) -> str:
    """An id that a parent can ask a ticket for."""
    try:
        TicketRequest.decode(TicketRequest(enclave_id=text, instance_id="i").encode())
    except (Malformed, LocalProtocolError):
        raise Unusable("an ID has 1 to 128 characters") from None
    return text


def _instances(names: list[str] | None) -> tuple[str, ...] | None:
    """Ids as a parent gives them for a ticket; None, for any, without an option."""
    if names is None:
        return None
    for name in names:
        if not _INSTANCE.fullmatch(name):
            raise Unusable(f"--instance {name!a}: an instance id is i- and 8 to 17 hexadecimal digits")
    return tuple(names)


def _reference(arguments: argparse.Namespace) -> ReferenceValues:
    reference = read_reference(arguments.reference)
    if arguments.epoch is None:
        return reference
    epoch = _bounded("--epoch", arguments.epoch, 0, _EPOCH_MAX)
    return ReferenceValues(measurements=tuple(replace(each, epoch=epoch) for each in reference.measurements))


def _key_digest(name: str) -> str:
    try:
        key = read_certificates(name)[0].public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise Unusable(f"{name}: a certificate whose key cannot be read") from None
    return spki_digest(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hex()


def _pair(entry: str) -> tuple[str, str]:
    name, equals, value = _valid("--host-parameter", _printable, entry).partition("=")
    if not name or not equals:
        raise Unusable(f"{entry!r}: NAME=VALUE expected")
    return name, value


def _secrets(arguments: argparse.Namespace) -> dict[str, Secret]:
    """The secrets, as an enclave will read them from a bundle."""
    named = [*_read(arguments.secret_env, "env"), *_read(arguments.secret_file, "file")]
    secrets = dict(named)
    if len(secrets) < len(named):
        raise Unusable("two secrets have one name")
    room = BUNDLE_MAX - _CERTIFICATES_ROOM
    try:
        bundle = Bundle(version=1, lease_key=SecretValue(bytes(32)), secrets=secrets, identities=()).encode()
        if len(bundle) > room:
            raise Unusable(f"the secrets need {len(bundle)} bytes of a release, which has room for {room}")
        Bundle.decode(bundle)
    except (Malformed, LocalProtocolError) as error:
        raise Unusable(f"no enclave would take these secrets: {error}") from None
    return secrets


def _read(entries: list[str], delivery: Delivery) -> Iterator[tuple[str, Secret]]:
    for entry in entries:
        name, equals, path = entry.partition("=")
        if not name or not equals or not path:
            raise Unusable(f"{entry!a}: NAME=FILE expected, so that a secret never stands on a command line")
        value = read_file(path)
        if len(value) >= FILE_MAX:
            raise Unusable(f"{path}: a secret has less than {FILE_MAX} bytes")
        if delivery == "env":
            value = value.removesuffix(b"\n")
            if b"\0" in value:
                raise Unusable(f"{path}: an environment variable cannot hold a NUL byte; use --secret-file")
        yield name, Secret(delivery=delivery, value=SecretValue(value), file_name=Path(path).name if delivery == "file" else None)
