"""The boot journal of a whole machine: every stage in order, the stage of a failure, and the console where no parent ever came."""

from pathlib import Path

import trio

from runtime.enclave.config_roots import PinnedRoots
from runtime.net.endpoint import Unix
from runtime.protocol.link import Journal, State
from runtime.protocol.link_values import STAGES
from runtime.simulator.layout import Layout
from runtime.simulator.programs import running
from tests.scenarios.machines import Machine, local_api, real_world, running_machine
from tests.scenarios.world import Image, measure

PROCESS = """
[[process]]
name = "app"
command = ["sleep", "0.5"]
restart = "never"
"""


def journal(machine: Machine) -> list[Journal | State]:
    return [report for _, report in sorted(machine.parent.reports.items()) if isinstance(report, Journal | State)]


def events(machine: Machine, event: str) -> list[Journal]:
    return [report for report in journal(machine) if isinstance(report, Journal) and report.event == event]


async def test_a_boot_tells_of_every_stage_from_the_start_of_the_process(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        image = world.image(tables=PROCESS + local_api())
        world.register(image)
        async with running_machine(world, image) as machine:
            assert await machine.ended() == ("stopped", "", 0)
            first, second, *_ = journal(machine)
            assert isinstance(first, State)
            assert isinstance(second, Journal)
            assert (first.name, second.event) == ("booting", "boot.started")
            stages = events(machine, "stage.ended")
            assert [report.fields["stage"] for report in stages] == list(STAGES)
            ended = 0
            for report in stages:
                took, at = report.fields["took_ms"], report.fields["elapsed_ms"]
                assert isinstance(took, int)
                assert isinstance(at, int)
                assert 0 <= at - (ended + took) <= 1  # of whole milliseconds
                ended = at


async def test_a_boot_that_fails_names_the_stage_that_it_failed_in(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        good = world.image(tables=PROCESS + local_api())
        world.register(good)
        for image, stage, reason in (
            (Image(config=good.config, raw=b"version = 2\n", registers=good.registers), "config", "config_invalid"),
            (measure(good.raw + b"# another\n"), "provision", "provisioner_refused"),
        ):
            async with running_machine(world, image) as machine:
                assert (await machine.ended())[:2] == ("failed", reason)
                (failed,) = events(machine, "boot.failed")
                assert (failed.fields["stage"], failed.fields["reason"]) == (stage, reason)
                done = [report.fields["stage"] for report in events(machine, "stage.ended")]
                assert done == list(STAGES[: STAGES.index(stage)])


async def test_a_pinned_root_that_is_no_certificate_ends_the_boot_as_any_other_fault_of_the_config(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        good = world.image(tables=PROCESS + local_api())
        world.register(good)
        assert good.config.provisioner is not None
        roots = good.config.provisioner.ca
        version_8 = PinnedRoots(tuple(der.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020107")) for der in roots.ders))
        assert str(roots).encode() in good.raw
        raw = good.raw.replace(str(roots).encode(), str(version_8).encode())
        async with running_machine(world, Image(config=good.config, raw=raw, registers=good.registers)) as machine:
            assert (await machine.ended())[:2] == ("failed", "config_invalid")
            (failed,) = events(machine, "boot.failed")
            assert failed.fields["stage"] == "provision", "whoever uses the roots finds out; PID 1 takes no certificate apart"


async def test_a_machine_that_never_met_a_parent_tells_its_console_how_far_it_came(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.make()
    (layout.enclave / "enclave.toml").write_text("version = 1\n")
    (layout.enclave / "image.json").write_text('{"WorkingDir": "/"}')
    assert isinstance(layout.parent_port(9001), Unix)
    async with running("enclave", ["-m", "runtime.simulator.machine", str(layout.base)], layout.logs) as program:
        with trio.fail_after(30):
            assert await program.wait() == 1
    lines = program.log.read_text().splitlines()
    assert all(line.startswith("enclave: ") for line in lines)
    said = "\n".join(lines)
    assert "boot.started pid_one=" in said
    assert "stage.ended stage='prepare'" in said
    assert "boot.failed reason='config_invalid' stage='config'" in said
