"""Each fault of the table, provoked in a real machine: the parent is told of it by its own reason, the enclave ends in time or goes on,
no process of its is left, and no secret was shown to anybody."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.enclave.init.steps import STEPS
from tests.scenarios.clients import until
from tests.scenarios.faults import FAULTS, SCENES
from tests.scenarios.faults.fault import APP, Fault, nothing
from tests.scenarios.faults.site import Site, fault_site, started
from tests.support.pages import rows

PAGE = Path(__file__).parents[2] / "runtime" / "enclave" / "FAULTS.md"
MASKED = "the token is [secret API_TOKEN]"


@pytest.mark.parametrize("scene", SCENES)
async def test_a_fault_is_told_by_its_own_reason_and_leaves_nothing_behind(tmp_path: Path, scene: str) -> None:
    fault, *others = SCENES[scene]
    async with fault_site(tmp_path, tables=fault.tables, provisioner=fault.provisioner, channel=fault.channel) as site:
        for each in (fault, *others):
            await each.prepare(site)
        async with started(site):
            await fault.provoke(site)
            for each in (fault, *others):
                await site.seen(each.event, kind=each.kind, reason=each.reason or None)
            await fault.mend(site)
            await require_end(site, fault)
        await until(lambda: site.household.left() == set())
        assert site.leaks() == []
        refusals = site.world.refusals()
        assert (refusals[-1] if refusals else None) == fault.audit


async def require_end(site: Site, fault: Fault) -> None:
    """It ends as declared, and `enclave status` would say so; or it goes on, with no zombie, until it is asked to end."""
    boot = site.parent.control.boot
    assert boot is not None
    if fault.ends is None:
        await site.ready()
        await until(lambda: site.household.zombies() == set())
        await site.says(MASKED)
        await site.drained()
        assert (boot.state, boot.reason) == ("stopped", "")
        return
    status = await site.over()
    if fault.ends == "failed":
        assert (boot.state, boot.reason) == ("failed", fault.reason)
        assert status != 0
        assert f"[{fault.reason}]" in site.program.log.read_text(), "the console of a debug enclave has it too"
    else:
        assert boot.state == ("stopped" if fault.ends == "stopped" else "ready"), "a first process that is killed says nothing more"


async def test_a_secret_that_leaked_and_a_process_that_was_left_would_be_found(tmp_path: Path) -> None:
    async with fault_site(tmp_path, tables=APP) as site:
        async with started(site):
            await site.ready()
            assert len(site.household.left()) >= 4, "the first process, the fork server, a worker, the app"
            await site.says(MASKED)
            assert site.leaks() == []
            await site.drained()
        token, url = (site.world.secrets[name].value.reveal() for name in ("API_TOKEN", "DATABASE_URL"))
        (site.layout.logs / "some.log").write_bytes(b"url " + url.hex().encode())
        assert site.leaks() == ["DATABASE_URL"]
        site.parent.control_cable.carried.append(bytearray(token))
        assert site.leaks() == ["API_TOKEN", "DATABASE_URL"]
        assert site.household.left() == set()


def test_every_fault_has_a_code_of_its_own() -> None:
    assert len(FAULTS) >= 40
    assert [code for code, count in Counter(fault.code for fault in FAULTS).items() if count > 1] == []
    assert [name for name, count in Counter(fault.name for fault in FAULTS).items() if count > 1] == []
    for faults in SCENES.values():
        assert len({replace(fault, name="", event="", reason="", prepare=nothing) for fault in faults}) == 1, "but for what each is"


def test_every_reason_of_the_first_steps_is_provoked() -> None:
    assert {reason for step in STEPS for reason in step.reasons} <= {fault.reason for fault in FAULTS}


def test_the_page_for_operators_has_every_fault_with_its_code_and_what_to_do() -> None:
    text = PAGE.read_text().partition("## What is not in the tables")[0]
    written = [row for row in rows(text) if len(row) == 5]
    assert [tuple(row[:4]) for row in written] == [shown(fault) for fault in FAULTS]
    assert all(row[4] for row in written)


def shown(fault: Fault) -> tuple[str, ...]:
    """A fault as the page has it."""
    reason = f"`{fault.reason}`" if fault.reason else ""
    then = {None: "goes on", "killed": "no last word"}.get(fault.ends, f"`{fault.ends}`")
    return fault.name, f"`{fault.event}`", reason + (f"; audit `{fault.audit}`" if fault.audit else ""), then
