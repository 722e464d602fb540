"""The faults of the security module behind the kernel's own driver. At boot each ends in its reason, and the machine is turned off."""

import json
from pathlib import Path

import pytest
import trio
from cryptography import x509

from runtime.net.clock import utc_now
from runtime.net.endpoint import connect
from runtime.net.http import HttpClient, Response
from runtime.net.tls import TlsStream, client_context
from runtime.protocol.nsm import Attest, DescribeNsm, NsmErrorCode
from runtime.simulator.around import Simulation, until_ready
from runtime.simulator.nsm import Faults, SimulatedNsm
from runtime.simulator.vm.vm import booting, drain, open_simulation
from tests.vm.images import options_for, with_module

PATIENCE = 220.0

AT_BOOT = {
    "there is none": (None, "nsm_unavailable"),
    "it answers nothing": (Faults(stall=trio.Event()), "nsm_stalled"),
    "it describes itself to nobody": (Faults(refused={DescribeNsm: NsmErrorCode.INVALID_ARGUMENT}), "nsm_invalid_argument"),
}


@pytest.mark.parametrize("what", AT_BOOT)
async def test_a_boot_whose_module_does_not_work_fails_with_its_reason_and_turns_the_machine_off(what: str, image: Path) -> None:
    faults, reason = AT_BOOT[what]
    options = options_for(image)
    simulation = open_simulation(options)
    with trio.fail_after(PATIENCE):
        async with booting(simulation, options, with_module(faults, [])) as booted:
            await simulation.has_failed.wait()
            assert simulation.last_state == ("failed", reason)
            assert await booted.machine.wait() == 0


async def test_a_module_that_is_slow_refuses_or_stalls_costs_an_enclave_that_runs_no_more_than_its_evidence(image: Path) -> None:
    made: list[SimulatedNsm] = []
    options = options_for(image)
    simulation = open_simulation(options)
    with trio.fail_after(PATIENCE):
        async with booting(simulation, options, with_module(Faults(), made)) as booted:
            (nsm,) = made
            await until_ready(simulation, booted.machine, seconds=PATIENCE)
            nsm.faults = Faults(delay=1.0)
            assert await _evidence(simulation) == (200, "")
            nsm.faults = Faults(refused={Attest: NsmErrorCode.INTERNAL_ERROR})
            assert await _evidence(simulation) == (500, "attestation_failed")
            stalled = trio.Event()
            nsm.faults = Faults(stall=stalled)
            assert await _evidence(simulation) == (503, "attestation_unavailable")
            assert (await _get(simulation, "/")).status == 200
            nsm.faults = Faults()
            stalled.set()
            while await _evidence(simulation) != (200, ""):
                await trio.sleep(0.5)
            await drain(simulation, booted.machine)


async def _evidence(simulation: Simulation) -> tuple[int, str]:
    answer = await _get(simulation, "/.well-known/attestation?nonce=" + "5a" * 32)
    return answer.status, "" if answer.status == 200 else str(json.loads(answer.body)["code"])


async def _get(simulation: Simulation, target: str) -> Response:
    assert simulation.public is not None
    roots = x509.load_pem_x509_certificates(simulation.layout.ca.read_bytes())
    async with await connect(simulation.public) as stream:
        tls = await TlsStream.connect(stream, client_context(roots, now=utc_now()), server_name="localhost")
        try:
            return await HttpClient(tls, host="localhost").request("GET", target, max_body=1 << 20)
        finally:
            await trio.aclose_forcefully(tls)
