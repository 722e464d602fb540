"""What the platform configuration registers (PCRs) of an enclave hold, and how to know beforehand.

A PCR is extended: `new = SHA-384(old || data)`, from 48 zero bytes. PCR 0, 1, 2 measure the image (AWS, *Enclave image file
specification*), 3 and 4 the role and the instance, 8 the signer; 16, 17 and 18 are this runtime's (protocol/README.md section 1.3).
"""

from collections.abc import Mapping, Sequence
from hashlib import sha384

from runtime.protocol.digest import digest, digest_of

PCR_SIZE = 48
ZERO = bytes(PCR_SIZE)

IMAGE_PCRS = (0, 1, 2)
ROLE_PCR = 3
INSTANCE_PCR = 4
CONFIG_PCR = 16
KEY_PCR = 17
LIVE_PCR = 18
APPLICATION_PCRS = range(16, 32)
"""The registers that are not locked at boot."""


def extend(value: bytes, data: bytes) -> bytes:
    """The register after one extension. `data` is extended as it is, not hashed first."""
    return sha384(value + data).digest()


def extended_once(data: bytes) -> bytes:
    """A register that was extended once, from zero."""
    return extend(ZERO, data)


def config_commitment(config_digest: bytes, host_parameters: Mapping[str, str]) -> bytes:
    """What PCR 16 is extended with before hello."""
    return digest_of(["config", config_digest, dict(host_parameters)])


def key_commitment(hpke_public_key: bytes) -> bytes:
    """What PCR 17 is extended with before the evidence of "setup"."""
    return digest_of(["key", digest(hpke_public_key)])


def live_commitment() -> bytes:
    """What PCR 18 is extended with after the bundle opened, before any customer process."""
    return digest(b"prov/1 live")


def instance_register(instance_id: str) -> bytes:
    """PCR 4 of an enclave on this instance: the id itself is extended, not hashed first."""
    return extended_once(instance_id.encode())


def role_register(role_arn: str) -> bytes:
    """PCR 3 of an enclave whose instance has this IAM role: the ARN itself is extended, not hashed first."""
    return extended_once(role_arn.encode())


def image_registers(
    kernel: bytes | memoryview, command_line: bytes | memoryview, ramdisks: Sequence[bytes | memoryview]
) -> dict[int, bytes]:
    """PCR 0, 1 and 2 of an image: the data of its sections, in file order, the kernel first."""
    boot = sha384(kernel)
    boot.update(command_line)
    whole, application = boot.copy(), sha384()
    if ramdisks:
        boot.update(ramdisks[0])
    for index, ramdisk in enumerate(ramdisks):
        whole.update(ramdisk)
        if index:
            application.update(ramdisk)
    return dict(zip(IMAGE_PCRS, (extended_once(h.digest()) for h in (whole, boot, application)), strict=True))
