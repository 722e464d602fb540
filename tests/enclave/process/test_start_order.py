"""In which order services and jobs start, and what happens when one of them does not get there."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from runtime.enclave.supervisor import CustomerFailed
from tests.enclave.process.fakes import Fakes, config_with

WATCHED = 'ready = { tcp = "127.0.0.1:1" }'
JOB = 'kind = "job"\nrestart = "never"'


def alive(fakes: Fakes) -> list[str]:
    return [process.name for process in fakes.config.process if fakes.alive(process.name) is not None]


def end(fakes: Fakes, name: str, code: int = 0) -> None:
    process = fakes.alive(name)
    assert process is not None
    process.end(code)


async def begin(nursery: trio.Nursery, *processes: str, tables: str = "") -> Fakes:
    fakes = Fakes(config_with(*processes, tables=tables))
    nursery.start_soon(fakes.run)
    await wait_all_tasks_blocked()
    return fakes


def reason(fakes: Fakes) -> str:
    assert isinstance(fakes.outcome, CustomerFailed)
    return fakes.outcome.reason


async def test_processes_that_do_not_wait_for_one_another_start_together(nursery: trio.Nursery) -> None:
    fakes = await begin(nursery, f'name = "slow"\n{WATCHED}', 'name = "other"', 'name = "last"\nafter = ["slow", "other"]')
    assert alive(fakes) == ["slow", "other"]
    fakes.supervisor.probed("slow", True)
    await wait_all_tasks_blocked()
    assert alive(fakes) == ["slow", "other", "last"]
    assert fakes.supervisor.is_ready


async def test_what_comes_after_a_job_starts_when_it_has_ended_well(nursery: trio.Nursery) -> None:
    fakes = await begin(nursery, 'name = "app"\nafter = ["migrate"]', f'name = "migrate"\n{JOB}')
    assert alive(fakes) == ["migrate"]
    assert True not in fakes.was_ready, "a job that runs is not done"
    end(fakes, "migrate")
    await wait_all_tasks_blocked()
    assert alive(fakes) == ["app"]
    assert fakes.supervisor.is_ready, "a job that is done counts as ready, and for good"
    assert fakes.was_ready == [False, True]
    assert fakes.events("process_started", "process.exited", "process_ready") == [
        ("process_started", "migrate"), ("process.exited", "migrate"), ("process_ready", "migrate"),
        ("process_started", "app"), ("process_ready", "app"),
    ]  # fmt: skip


async def test_a_job_that_fails_ends_everything_and_nothing_that_waits_for_it_starts(nursery: trio.Nursery) -> None:
    fakes = await begin(nursery, f'name = "migrate"\n{JOB}', 'name = "app"\nafter = ["migrate"]', 'name = "beside"')
    end(fakes, "migrate", 3)
    await wait_all_tasks_blocked()
    assert alive(fakes) == ["beside"], "which has its grace"
    end(fakes, "beside")
    await wait_all_tasks_blocked()
    assert isinstance(fakes.outcome, CustomerFailed)
    assert (fakes.outcome.reason, fakes.outcome.status) == ("job_failed", 3)
    assert {process.name for process in fakes.launched} == {"migrate", "beside"}


async def test_a_job_runs_again_on_failure_and_not_after_it_is_done(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    fakes = await begin(nursery, 'name = "migrate"\nkind = "job"', 'name = "app"\nafter = ["migrate"]')
    end(fakes, "migrate", 1)
    await trio.sleep(1)
    assert alive(fakes) == ["migrate"]
    end(fakes, "migrate", 0)
    await trio.sleep(3600)
    assert alive(fakes) == ["app"]
    assert [process.name for process in fakes.launched] == ["migrate", "migrate", "app"]


async def test_a_job_that_never_ends_is_not_ready_in_time(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    fakes = await begin(
        nursery,
        f'name = "migrate"\nstop_grace = "1s"\n{JOB}',
        'name = "app"\nafter = ["migrate"]',
        tables='[health]\nstart_timeout = "40s"',
    )
    await trio.sleep(42)
    assert reason(fakes) == "ready_timeout"
    assert [process.name for process in fakes.launched] == ["migrate"]


async def test_the_time_until_a_process_must_be_ready_begins_with_its_own_start(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    tables = '[health]\nstart_timeout = "40s"'
    fakes = await begin(nursery, f'name = "first"\n{WATCHED}', f'name = "second"\nafter = ["first"]\n{WATCHED}', tables=tables)
    await trio.sleep(30)
    fakes.supervisor.probed("first", True)
    await trio.sleep(30)
    fakes.supervisor.probed("second", True)
    await trio.sleep(60)
    assert fakes.outcome is None
    assert fakes.supervisor.is_ready


async def test_only_jobs_end_with_the_status_of_the_first(nursery: trio.Nursery) -> None:
    fakes = await begin(nursery, f'name = "one"\n{JOB}', f'name = "two"\n{JOB}')
    end(fakes, "two")
    end(fakes, "one")
    await wait_all_tasks_blocked()
    assert fakes.outcome == 0


async def test_the_status_is_that_of_the_first_service_whatever_jobs_stand_before_it(nursery: trio.Nursery) -> None:
    fakes = await begin(nursery, f'name = "job"\n{JOB}', 'name = "app"\nafter = ["job"]\nrestart = "never"', 'name = "side"')
    end(fakes, "job")
    await wait_all_tasks_blocked()
    end(fakes, "side", 0)
    end(fakes, "app", 9)
    await wait_all_tasks_blocked()
    assert isinstance(fakes.outcome, CustomerFailed)
    assert fakes.outcome.status == 9


async def test_a_service_that_ends_well_without_ever_being_ready_fails_what_waits_for_it(nursery: trio.Nursery) -> None:
    fakes = await begin(nursery, f'name = "first"\n{WATCHED}', 'name = "second"\nafter = ["first"]')
    end(fakes, "first", 0)
    await wait_all_tasks_blocked()
    assert reason(fakes) == "dependency_failed"
    assert [process.name for process in fakes.launched] == ["first"]


async def test_a_stop_before_something_is_ready_is_not_held_up_by_what_waits_for_it(nursery: trio.Nursery) -> None:
    fakes = await begin(nursery, f'name = "first"\nstop_grace = "0s"\n{WATCHED}', 'name = "second"\nafter = ["first"]')
    with trio.fail_after(30):
        await fakes.supervisor.stop()
    assert [process.name for process in fakes.launched] == ["first"]


@pytest.mark.parametrize("missing", ["first", "second"])
async def test_a_program_that_is_missing_ends_everything_with_its_reason(autojump_clock: MockClock, missing: str) -> None:
    fakes = Fakes(config_with('name = "first"\nstop_grace = "0s"', 'name = "second"'), refused={missing})
    await fakes.run()
    assert reason(fakes) == "command_missing"
    assert fakes.journal[-1][0] in ("process.exited", "process_not_ready", "process.gave_up")
    assert ("process.gave_up", missing) in fakes.events("process.gave_up")
