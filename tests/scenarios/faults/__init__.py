"""The table of faults: every way for a boot or a run to fail that can be provoked here, each with what an operator sees of it."""

from tests.scenarios.faults.fault import Fault
from tests.scenarios.faults.of_a_run import OF_PROCESSES
from tests.scenarios.faults.of_provisioning import OF_PROVISIONING
from tests.scenarios.faults.of_the_machine import OF_THE_MACHINE
from tests.scenarios.faults.of_the_module import OF_THE_LINK, OF_THE_MODULE
from tests.scenarios.faults.of_workers import OF_WORKERS

FAULTS: tuple[Fault, ...] = (*OF_THE_MACHINE, *OF_THE_MODULE, *OF_THE_LINK, *OF_PROVISIONING, *OF_WORKERS, *OF_PROCESSES)
SCENES: dict[str, tuple[Fault, ...]] = {
    scene: tuple(fault for fault in FAULTS if (fault.scene or fault.name) == scene)
    for scene in dict.fromkeys(fault.scene or fault.name for fault in FAULTS)
}
"""The faults that one machine is started for, by what is written over them."""
