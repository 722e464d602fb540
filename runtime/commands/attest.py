"""`enclave attest URL`: connects, challenges, appraises, and says whether the evidence is about this very connection."""

import argparse
import json
import secrets
from functools import partial

import trio

from runtime.client.config import ClientConfig, read_client_config
from runtime.client.session import NONCE_SIZE, Attested, Policy, Target, open_session
from runtime.commands.inputs import Unusable, read_certificates, read_reference, read_roots
from runtime.commands.output import fail, note, write
from runtime.net.clock import utc_now
from runtime.net.endpoint import Endpoint
from runtime.net.serve import CONNECTION_ERRORS
from runtime.protocol.errors import ProtocolError
from runtime.settings import SettingsError
from runtime.verifier.appraise import AppraisalFailed
from runtime.verifier.reasons import rfc3339
from runtime.verifier.reference import ANY_MEASUREMENT

_NO_REFERENCE = "give --reference FILE, or --any-measurement to accept any code"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `attest`. Exit status: 0 proved, 1 not proved, 2 usage."""
    parser = subparsers.add_parser(
        "attest",
        help="prove over the network what an enclave is",
        description="Ask an enclave for evidence with a fresh nonce, appraise it, and check that it names this TLS connection. "
        "Exit status: 0 proved, 1 not proved, 2 usage.",
    )
    parser.add_argument("url", nargs="?", metavar="URL", help="https://HOST[:PORT]")
    parser.add_argument("-c", "--config", metavar="client.toml", help="take what is not given here from this file")
    expected = parser.add_mutually_exclusive_group()
    expected.add_argument("--reference", metavar="FILE", help="reference values: TOML, or what nitro-cli printed about the image")
    expected.add_argument("--any-measurement", action="store_true", help="accept any code")
    parser.add_argument("--root", metavar="PEM", help="trust these roots of attestation in place of AWS's")
    parser.add_argument(
        "--ca", metavar="PEM", help="judge the TLS certificate by these roots too; without it the evidence alone decides"
    )
    parser.add_argument(
        "--connect", type=_endpoint, metavar="tcp:HOST:PORT", help="connect here instead of where the URL's name resolves to"
    )
    parser.add_argument("--allow-debug", action="store_true", help="accept debug enclaves, which measure nothing")
    parser.add_argument("--json", action="store_true", help="the outcome as one JSON object")
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> int:
    try:
        config = read_client_config(arguments.config) if arguments.config else ClientConfig(version=1)
        target = Target.parse(arguments.url or config.url)
        policy = _policy(arguments, config)
    except (SettingsError, Unusable, ValueError) as error:
        return fail("attest", str(error), 2)
    except OSError as error:
        return fail("attest", error, 2)
    try:
        attested = trio.run(partial(_attest, target, policy, arguments.connect))
    except AppraisalFailed as failed:
        return _refused(arguments, target, [(mismatch.code.value, mismatch.detail) for mismatch in failed.mismatches])
    except ProtocolError as error:
        return _refused(arguments, target, [(error.reason, error.detail)])
    except CONNECTION_ERRORS as error:
        return _refused(arguments, target, [("unreachable", str(error) or type(error).__name__)])
    _accepted(arguments, target, policy, attested)
    return 0


async def _attest(target: Target, policy: Policy, address: Endpoint | None) -> Attested:
    async with open_session(target, policy, nonce=secrets.token_bytes(NONCE_SIZE), clock=utc_now, address=address) as session:
        return session.attested


def _policy(arguments: argparse.Namespace, config: ClientConfig) -> Policy:
    reference_file = arguments.reference or config.reference
    ca_file = arguments.ca or config.ca
    return Policy(
        roots=read_roots(arguments.root or config.root),
        reference=ANY_MEASUREMENT if arguments.any_measurement else read_reference(reference_file) if reference_file else None,
        ca=read_certificates(ca_file) if ca_file else None,
        allow_debug=arguments.allow_debug or config.allow_debug,
    )


def _accepted(arguments: argparse.Namespace, target: Target, policy: Policy, attested: Attested) -> None:
    result = attested.result
    if arguments.json:
        write(
            json.dumps(
                {
                    "url": target.url,
                    "accepted": True,
                    "reasons": [],
                    "module_id": result.module_id,
                    "timestamp": rfc3339(result.timestamp),
                    "pcrs": {str(index): value.hex() for index, value in sorted(result.pcrs.items())},
                    "reference": result.reference.name if result.reference else None,
                    "debug": result.is_debug,
                    "config_digest": attested.config_digest.hex(),
                    "spki_digest": attested.spki_digest.hex(),
                    "tls_version": attested.tls_version,
                    "tls_group": attested.tls_group,
                    "certificate_judged": policy.ca is not None,
                }
            )
        )
        return
    rows = [
        ("measurement", result.reference.name if result.reference else "any: you asked for no reference values"),
        ("module", result.module_id),
        ("made", rfc3339(result.timestamp)),
        (
            "bound to",
            f"TLS key {attested.spki_digest.hex()[:16]}… and this TLS {attested.tls_version} connection ({attested.tls_group})",
        ),
        ("config", attested.config_digest.hex()),
        ("certificate", "judged by --ca" if policy.ca is not None else "not judged: the evidence names its key"),
        *((f"PCR{index}", value.hex()) for index, value in sorted(result.pcrs.items()) if any(value)),
    ]
    write(f"attested  {target.url}\n" + "\n".join(f"  {label:<12} {value}" for label, value in rows))


def _refused(arguments: argparse.Namespace, target: Target, reasons: list[tuple[str, str]]) -> int:
    if arguments.json:
        write(json.dumps({"url": target.url, "accepted": False, "reasons": list(dict.fromkeys(code for code, _ in reasons))}))
    else:
        write(f"REFUSED   {target.url}\n" + "\n".join(f"  {code:<20} {detail}" for code, detail in reasons))
    if any(code == "reference_missing" for code, _ in reasons):
        note(f"enclave attest: {_NO_REFERENCE}")
    return 1


def _endpoint(text: str) -> Endpoint:
    try:
        return Endpoint.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
