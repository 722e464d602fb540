"""Documents that are well formed and well signed under a chain that must not be believed, each with all the codes that say why."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384

from tests.support import der_writer as der
from tests.support.documents import (
    MADE,
    MODULE_ID,
    NOW,
    Plan,
    altered,
    certificates,
    chained,
    document,
    key,
    key_identifier,
    nitro_chain,
    spki,
    write_certificate,
    write_chain,
)
from tests.support.mutations_bytes import Mutation

ROOT, REGION, ZONE, INSTANCE, LEAF = range(5)
NULL = b"\x05\x00"
CA_BITS = (der.DIGITAL_SIGNATURE, der.KEY_CERT_SIGN, der.CRL_SIGN)


def _with_certificate(place: int, change: Callable[[bytes], bytes]) -> bytes:
    """One certificate's bytes changed after it was signed."""
    chain = list(certificates())
    chain[place] = change(chain[place])
    return document(chain)


def _extra(plans: Sequence[Plan], position: int, count: int, **changes: Any) -> tuple[Plan, ...]:
    """`count` more issuers at `position`."""
    more = [Plan(common_name=f"more {number}.aws.nitro-enclaves", key=key(50 + number), **changes) for number in range(count)]
    return (*plans[:position], *more, *plans[position:])


def order_mutations() -> Iterator[Mutation]:
    """The right certificates in the wrong places, and wrong roots."""
    root, region, zone, instance, leaf = certificates()
    broken = {"issuer_name", "certificate_signature"}
    keyed = broken | {"key_identifier"}
    yield "leaf first", document([instance, zone, region, root, leaf]), {"root_unknown", "path_length"} | keyed
    yield "two issuers swapped", document([root, zone, region, instance, leaf]), {"path_length"} | keyed
    yield "the last two issuers swapped", document([root, region, instance, zone, leaf]), {"path_length"} | keyed
    yield "no root", document([region, zone, instance, leaf]), {"root_unknown"} | keyed
    yield "no regional issuer", document([root, zone, instance, leaf]), keyed
    yield "no instance issuer", document([root, region, zone, leaf]), broken
    yield "only the root", document([root, leaf]), broken
    yield "only the issuer of the leaf", document([instance, leaf]), {"root_unknown"} | keyed
    yield "the root twice", document([root, root, region, zone, instance, leaf]), {"certificate_repeated"}
    yield (
        "an issuer twice",
        document([root, region, region, zone, instance, leaf]),
        {"certificate_repeated", "path_length"} | keyed,
    )
    yield "the root last", document([root, region, zone, instance, root, leaf]), {"certificate_repeated", "path_length"} | broken
    yield (
        "the leaf in the cabundle",
        document([root, region, zone, instance, leaf, leaf]),
        {"certificate_repeated", "path_length", "not_a_ca", "key_usage"} | broken,
    )
    yield (
        "an issuer as the leaf",
        document([root, region, zone, instance], private=key(3)),
        {"leaf_is_ca", "key_usage", "module_name"},
    )
    yield (
        "the root as the leaf",
        document([root, root], private=key(0)),
        {"certificate_repeated", "leaf_is_ca", "key_usage", "module_name"},
    )

    own = list(nitro_chain())
    own[ROOT] = replace(own[ROOT], key=key(80), subject_key_id=der.subject_key_id(key_identifier(key(0))))
    own[REGION] = replace(own[REGION], authority_key_id=der.authority_key_id(key_identifier(key(0))))
    forged = write_chain(own)
    yield "a root of the same name and key id", document(forged), {"root_unknown"}
    yield "the true root before a chain of another", document([root, *forged[1:]]), {"certificate_signature"}
    yield (
        "a root of the same name and key id, trusted one after it",
        document([forged[0], root, *forged[1:]]),
        {
            "root_unknown",
            "certificate_signature",
        },
    )
    renewed = altered(ROOT, serial=der.integer(2))
    yield "the root's key in another certificate", chained(renewed), {"root_unknown"}
    yield (
        "a leaf that signs itself",
        document([leaf, leaf]),
        {
            "root_unknown",
            "certificate_repeated",
            "not_a_ca",
            "key_usage",
        }
        | broken,
    )
    signed_by_leaf = Plan(
        common_name=f"{MODULE_ID}.us-east-1.aws", key=key(60), basic=nitro_chain()[LEAF].basic, usage=nitro_chain()[LEAF].usage
    )
    yield (
        "a leaf signed by a leaf",
        document(write_chain((*nitro_chain(), signed_by_leaf)), private=key(60)),
        {
            "not_a_ca",
            "key_usage",
            "path_length",
        },
    )


def link_mutations() -> Iterator[Mutation]:
    """One certificate other than it must be, all else well made and signed."""
    for place, name in ((REGION, "regional"), (ZONE, "zonal"), (INSTANCE, "instance"), (LEAF, "leaf")):

        def one(what: str, codes: set[str], *, place: int = place, name: str = name, **changes: Any) -> Mutation:
            return f"{name}: {what}", chained(altered(place, **changes)), codes

        yield one("expired", {"certificate_expired"}, not_after=NOW - timedelta(seconds=1))
        yield one("not valid yet", {"certificate_not_yet_valid"}, not_before=NOW + timedelta(seconds=1))
        yield one(
            "valid backwards",
            {"certificate_expired", "certificate_not_yet_valid"},
            not_before=NOW + timedelta(hours=1),
            not_after=NOW - timedelta(hours=1),
        )
        yield one("signed by another key", {"certificate_signature"}, signer=key(70))
        yield one("another issuer", {"issuer_name"}, issuer=der.name("somebody else"))
        yield one("the issuer in other letters", {"issuer_name"}, issuer=der.name(nitro_chain()[place - 1].common_name.upper()))
        yield one("another key identifier", {"key_identifier"}, authority_key_id=der.authority_key_id(bytes(20)))
        yield one(
            "an unknown critical extension", {"critical_extension"}, extra=der.extension("1.2.3.4", b"\x05\x00", critical=True)
        )
        yield one(
            "critical name constraints", {"critical_extension"}, extra=der.extension("2.5.29.30", der.sequence(), critical=True)
        )
        yield one("critical policies", {"critical_extension"}, extra=der.extension("2.5.29.32", der.sequence(), critical=True))
        yield one(
            "ecdsa-with-SHA256",
            {"certificate_algorithm"},
            algorithm=der.ECDSA_SHA256,
            inner_algorithm=der.ECDSA_SHA256,
            hash=SHA256,
        )
        yield one("another algorithm inside", {"certificate_algorithm"}, inner_algorithm=der.ECDSA_SHA256)
        yield one("another algorithm outside", {"certificate_algorithm"}, algorithm=der.ECDSA_SHA256)
        yield one("null parameters", {"certificate_algorithm"}, algorithm=der.sequence(der.oid("1.2.840.10045.4.3.3"), b"\x05\x00"))
        yield one("no keyUsage", {"key_usage"}, usage=b"")

        def syntax(what: str, *, place: int = place, name: str = name, **changes: Any) -> Mutation:
            codes = {"certificate_syntax"}
            return f"{name}: {what}", chained(altered(place, **changes)), codes

        yield syntax("bytes behind it", finish=lambda encoded: encoded + b"\x00")
        yield syntax("another certificate behind it", finish=lambda encoded: encoded + certificates()[0][:200])
        yield syntax("cut short", finish=lambda encoded: encoded[:-1])
        yield syntax("an indefinite length", finish=lambda encoded: b"\x30\x80" + encoded[4:] + b"\x00\x00")
        yield syntax("a length of three bytes", finish=lambda encoded: b"\x30\x83\x00" + encoded[2:])
        yield syntax("in PEM", finish=lambda _: b"-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----\n")
        yield syntax("a field behind the signature", finish=lambda encoded: der.sequence(encoded[4:], NULL))
        yield syntax("a field behind the extensions", extensions=der.tlv(0xA3, der.sequence(der.extension("1.2.3", b""))) + NULL)
        yield syntax("two lists of extensions", extensions=der.tlv(0xA3, *2 * (der.sequence(der.extension("1.2.3", b"")),)))
        yield syntax("a field behind the version", version=der.tlv(0xA0, der.integer(2), NULL))
        yield syntax("a third time", validity=der.sequence(*3 * (der.utc_time(NOW),)))
        yield syntax("one time", validity=der.sequence(der.utc_time(NOW)))
        yield syntax("a field behind an extension's value", extra=der.sequence(der.oid("1.2.3"), der.octets(b""), NULL))
        yield syntax("an extension without a value", extra=der.sequence(der.oid("1.2.3")))
        yield syntax("a field in basicConstraints", basic=der.extension("2.5.29.19", der.sequence(NULL), critical=True))
        yield syntax("a field behind basicConstraints", basic=der.extension("2.5.29.19", der.sequence() + NULL, critical=True))
        yield syntax("a field behind keyUsage", usage=der.extension("2.5.29.15", der.bits(b"\x84", 2) + NULL))
        yield syntax("a field behind its key identifier", subject_key_id=der.extension("2.5.29.14", der.octets(b"id") + NULL))
        yield syntax("a field in the issuer's key identifier", authority_key_id=der.extension("2.5.29.35", der.sequence(NULL)))
        yield syntax(
            "a field in its name", subject=der.sequence(der.tlv(0x31, der.sequence(der.oid("2.5.4.3"), b"\x0c\x00", NULL)))
        )
        yield syntax("version 1", version=b"")
        yield syntax("version 1 written out", version=bytes.fromhex("a003020100"))
        yield syntax("version 2", version=bytes.fromhex("a003020101"))
        yield syntax("version 4", version=bytes.fromhex("a003020103"))
        yield syntax("serial number zero", serial=der.integer(0))
        yield syntax("a negative serial number", serial=der.integer(-5))
        yield syntax("a long form of serial number", serial=bytes.fromhex("02020001"))
        yield syntax("a serial number of 21 bytes", serial=der.integer(1 << 160))
        yield syntax("no serial number", serial=b"\x02\x00")
        yield syntax("no extensions", extensions=b"")
        yield syntax("empty extensions", extensions=der.tlv(0xA3, der.sequence()))
        yield syntax("an extension twice", extra=der.extension("1.2.3", b"") * 2)
        yield syntax("a critical flag false written out", extra=der.sequence(der.oid("1.2.3"), b"\x01\x01\x00", der.octets(b"")))
        yield syntax("a critical flag of 01", extra=der.sequence(der.oid("1.2.3"), b"\x01\x01\x01", der.octets(b"")))
        yield syntax("unique identifiers", unique_ids=der.tlv(0x81, b"\x00\x01"))
        yield syntax("a time without seconds", validity=der.sequence(der.tlv(0x17, b"2607010000Z"), der.tlv(0x17, b"2707010000Z")))
        yield syntax(
            "a time with an offset", validity=der.sequence(der.tlv(0x17, b"260701000000+0000"), der.tlv(0x17, b"270701000000Z"))
        )
        yield syntax(
            "the 31st of February", validity=der.sequence(der.tlv(0x17, b"260231000000Z"), der.tlv(0x17, b"270701000000Z"))
        )
        yield syntax(
            "GeneralizedTime before 2050", validity=der.sequence(der.tlv(0x18, b"20260701000000Z"), der.tlv(0x17, b"270701000000Z"))
        )
        yield syntax("keyUsage that ends in a zero bit", usage=der.extension("2.5.29.15", der.bits(b"\x84", 1)))
        yield syntax("keyUsage in an octet string", usage=der.extension("2.5.29.15", der.octets(b"\x84")))
        yield syntax("basicConstraints that are no sequence", basic=der.extension("2.5.29.19", b"\x01\x01\xff", critical=True))
        yield syntax("CA false written out", basic=der.extension("2.5.29.19", der.sequence(b"\x01\x01\x00"), critical=True))
        yield syntax("a negative path length", basic=der.basic_constraints(path_length=-1))

    for place, name in ((REGION, "regional"), (ZONE, "zonal"), (INSTANCE, "instance")):
        for what, basic in (
            ("no basicConstraints", b""),
            ("basicConstraints not critical", der.basic_constraints(critical=False)),
            ("CA false", der.basic_constraints(ca=False)),
        ):
            yield f"{name}: {what}", chained(altered(place, basic=basic)), {"not_a_ca"}
        usage = der.key_usage(der.DIGITAL_SIGNATURE, der.CRL_SIGN)
        yield f"{name}: keyUsage without keyCertSign", chained(altered(place, usage=usage)), {"key_usage"}
        other_curve = ec.generate_private_key(ec.SECP256R1())
        yield f"{name}: a key of P-256", chained(altered(place, key=other_curve)), {"certificate_key"}
        wider_curve = ec.generate_private_key(ec.SECP521R1())
        yield f"{name}: a key of P-521", chained(altered(place, key=wider_curve)), {"certificate_key"}
        modulus = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        plans = list(altered(place, key=modulus))
        plans[place + 1] = replace(plans[place + 1], signer=key(71))
        yield f"{name}: a key of RSA", chained(plans), {"certificate_key"}
    point = spki(key(1))
    for what, encoded in (
        ("not on the curve", point[:-1] + bytes((point[-1] ^ 1,))),
        ("at infinity", der.sequence(point[2:20], der.bits(b"\x00"))),
        ("hybrid", point.replace(b"\x03\x62\x00\x04", bytes((3, 0x62, 0, 6 | point[-1] & 1)))),
        ("compressed", der.sequence(point[2:20], der.bits(b"\x02" + point[24:72]))),
        ("with the parameters of P-256", point.replace(bytes.fromhex("06052b81040022"), bytes.fromhex("06052b81040021"))),
        ("named Ed25519", der.sequence(der.sequence(der.oid("1.3.101.112")), der.bits(bytes(32)))),
    ):
        finished = chained(altered(REGION, spki=encoded))
        yield f"regional: a key {what}", finished, {"certificate_key"}

    yield "path length 1 at the region", chained(altered(REGION, basic=der.basic_constraints(path_length=1))), {"path_length"}
    yield "path length 0 at the zone", chained(altered(ZONE, basic=der.basic_constraints(path_length=0))), {"path_length"}
    yield "one issuer more than the region allows", chained(_extra(nitro_chain(), 2, 1)), {"path_length"}
    yield "four issuers more than allowed", chained(_extra(nitro_chain(), 4, 4)), {"path_length"}
    yield "leaf: CA true", chained(altered(LEAF, basic=der.basic_constraints())), {"leaf_is_ca"}
    yield "leaf: CA true, not critical", chained(altered(LEAF, basic=der.basic_constraints(critical=False))), {"leaf_is_ca"}
    yield "leaf: a path length", chained(altered(LEAF, basic=der.basic_constraints(ca=False, path_length=0))), {"leaf_is_ca"}
    yield "leaf: keyCertSign", chained(altered(LEAF, usage=der.key_usage(*CA_BITS))), {"key_usage"}
    yield "leaf: no digitalSignature", chained(altered(LEAF, usage=der.key_usage(der.NON_REPUDIATION))), {"key_usage"}
    critical_usage = der.extension("2.5.29.37", der.sequence(der.oid("1.3.6.1.5.5.7.3.1")), critical=True)
    yield "leaf: critical extendedKeyUsage", chained(altered(LEAF, extra=critical_usage)), {"critical_extension"}
    yield "leaf: of another module", chained(altered(LEAF, common_name="i-00000000000000000-enc0.us-east-1.aws")), {"module_name"}
    yield "leaf: the module's name without a dot", chained(altered(LEAF, common_name=MODULE_ID)), {"module_name"}
    yield (
        "leaf: two common names",
        chained(altered(LEAF, subject=der.sequence(*2 * (der.tlv(0x31, der.attribute("2.5.4.3", f"{MODULE_ID}.aws")),)))),
        {"module_name"},
    )
    yield "leaf: no common name", chained(altered(LEAF, subject=der.sequence())), {"module_name"}
    yield (
        "leaf: a common name of BMP",
        chained(altered(LEAF, subject=der.sequence(der.tlv(0x31, der.attribute("2.5.4.3", "ab", tag=0x1E))))),
        {"certificate_syntax"},
    )
    yield "leaf: an empty set in its name", chained(altered(LEAF, subject=der.sequence(b"\x31\x00"))), {"certificate_syntax"}
    yield (
        "leaf: a set out of order in its name",
        chained(
            altered(
                LEAF,
                subject=der.sequence(der.tlv(0x31, der.attribute("2.5.4.11", "b"), der.attribute("2.5.4.11", "a"))),
            )
        ),
        {"certificate_syntax"},
    )
    yield (
        "leaf: a flipped byte in its signature",
        _with_certificate(LEAF, lambda encoded: encoded[:-1] + bytes((encoded[-1] ^ 1,))),
        {"certificate_signature"},
    )
    yield (
        "instance: a flipped byte in its key",
        _with_certificate(INSTANCE, lambda encoded: encoded.replace(spki(key(3))[-8:], bytes(8))),
        {"certificate_key", "certificate_signature"},
    )
    yield "leaf: garbage", _with_certificate(LEAF, lambda _: b"\x30\x03\x02\x01\x00"), {"certificate_syntax"}
    yield (
        "every issuer garbage",
        document([b"\x00"] * 8 + [certificates()[LEAF]]),
        {
            "root_unknown",
            "certificate_repeated",
            "certificate_syntax",
        },
    )
    yield "the leaf's signature of another shape", _resigned(b"\x30\x06\x02\x01\x00\x02\x01\x00"), {"certificate_signature"}
    yield "the leaf's signature in BER", _resigned(None), {"certificate_signature"}
    one_key = [Plan(common_name="the same", key=key(0), serial=der.integer(number)) for number in range(1, 8)]
    yield (
        "seven issuers of one name and key",
        document(write_chain([*one_key, nitro_chain()[LEAF]])),
        {"root_unknown"},
    )
    yield "expired root", chained(altered(ROOT, not_after=MADE)), {"root_unknown", "certificate_expired"}


def _resigned(signature: bytes | None) -> bytes:
    """The leaf with another signature; None keeps its own, with a length of its DER in a long form."""
    leaf, parent = nitro_chain()[LEAF], nitro_chain()[INSTANCE]

    def finish(encoded: bytes) -> bytes:
        body = encoded[4 : 4 + 4 + int.from_bytes(encoded[6:8], "big")]
        old = key(3).sign(body, ec.ECDSA(SHA384()))
        new = b"\x30\x81" + old[1:] if signature is None else signature
        return der.sequence(body, der.ECDSA_SHA384, der.bits(new))

    return document([*certificates()[:LEAF], write_certificate(replace(leaf, finish=finish), parent)])
