"""The first process of an enclave image, on a Nitro machine and nothing else: no argument, file or variable names another device.

What it imports at its top is all that runs before the platform's heartbeat.
"""

import gc
import sys

from runtime.enclave.init.early import begin


def main() -> int:
    """Boots and runs, as the kernel's own init or as the child of another."""
    gc.disable()  # while all this is loaded: nothing of it is garbage, and looking for some takes a twentieth of the time
    early = begin()
    import trio

    from runtime.enclave.platform import NitroMachine
    from runtime.enclave.run import run

    gc.freeze()
    gc.enable()
    return trio.run(run, NitroMachine(early))


if __name__ == "__main__":
    sys.exit(main())
