"""`enclave cert new`: a certificate to sign images with, and its key. Runs on the build machine; nobody certifies it but itself."""

import argparse
from pathlib import Path

from runtime.commands.output import fail, write
from runtime.image.outputs import all_or_nothing
from runtime.image.signing import DAYS_MAX, new_certificate
from runtime.net.clock import utc_now


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `cert new`. Exit status: 0 made, 1 not made, 2 usage."""
    parser = subparsers.add_parser("cert", help="certificates that sign enclave images")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    new = actions.add_parser("new", help="make a certificate and its key", description="Exit status: 0 made, 1 not made, 2 usage.")
    new.add_argument("out", metavar="OUT", help="writes OUT.pem and OUT.key, and overwrites neither")
    new.add_argument("--name", default="enclave image signer", help="the signer's common name")
    new.add_argument("--days", type=int, default=365, help="how long it is valid (365)")
    new.set_defaults(handler=_new)


def _new(arguments: argparse.Namespace) -> int:
    certificate, key = Path(f"{arguments.out}.pem"), Path(f"{arguments.out}.key")
    if not 1 <= arguments.days <= DAYS_MAX or not 1 <= len(arguments.name) <= 64 or not arguments.name.isprintable():
        return fail("cert", f"--days is 1 to {DAYS_MAX}, --name has 1 to 64 printable characters", 2)
    if there := next((path for path in (certificate, key) if path.exists()), None):
        return fail("cert", f"{there} is there already", 1)
    pem, private, register = new_certificate(arguments.name, arguments.days, utc_now())
    try:
        with all_or_nothing() as outputs:
            outputs.write(key, [private], mode=0o600)
            outputs.write(certificate, [pem])
    except OSError as error:
        return fail("cert", error, 1)
    write(f"wrote {certificate} and {key}\nPCR8 of what it signs: {register.hex()}")
    return 0
