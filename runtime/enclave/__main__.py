"""The first process of an enclave image, on a Nitro machine and nothing else: no argument, file or variable names another device."""

import sys

import trio

from runtime.enclave.boot import run
from runtime.enclave.platform import NitroMachine


def main() -> int:
    """Boots and runs. The kernel gives its own leftover words as arguments; they mean nothing here."""
    return trio.run(run, NitroMachine())


if __name__ == "__main__":
    sys.exit(main())
