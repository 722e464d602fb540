"""What the first process loads: before its first record is on its way, and in all. Each module costs time and memory before anything
else can happen, and PID 1 must hold nothing that parses what others have made. A name that is added here has its reason."""

import json
import sys
from pathlib import Path

import trio

import runtime
from tests.scenarios.machines import PATIENCE, local_api, real_world, running_machine

BEFORE_THE_FIRST_RECORD = """
__main__
identity identity.nsm identity.system_clock
init init.early init.heartbeat init.kernel init.machine init.modules init.mounts init.names init.network init.ramdisk init.steps
link log logs logs.backlog logs.crowd logs.forms logs.journal logs.masking metrics platform
process process.descendants process.fork_server process.forwarding process.reaper process.subreaper
process_age ring run shortage stop
"""
PURE = """
net.clock net.endpoint net.failures
protocol.buffer protocol.bundle protocol.cbor protocol.digest protocol.errors protocol.fields protocol.framing protocol.link
protocol.link_state protocol.link_values protocol.log_batch protocol.messages protocol.nsm
settings settings_rules toml_lines
"""
PACKAGES = {"attr", "attrs", "idna", "outcome", "sniffio", "sortedcontainers", "trio"}
"""trio and what it needs."""
NEVER = {"OpenSSL", "_cffi_backend", "cryptography", "h11", "asyncio", "email", "http", "multiprocessing", "xml"}
MOST = 345
"""Modules of PID 1 in all, Python's own included: 330 when this was written, with 3.11."""

ALL = "import runtime.enclave.__main__, trio, runtime.enclave.platform, runtime.enclave.run, runtime.enclave.boot"
STANDARD = set(sys.stdlib_module_names)


async def loaded_by(code: str) -> list[str]:
    """Names of the modules of an interpreter that has run this and nothing else, not even `site`."""
    places = [str(Path(package.__file__ or "").parents[1]) for package in (runtime, trio)]
    told = f"import sys; sys.path += {places!r}; {code}; import json; print(json.dumps(list(sys.modules)))"
    finished = await trio.run_process([sys.executable, "-I", "-S", "-c", told], capture_stdout=True)
    modules: list[str] = json.loads(finished.stdout)
    return modules


def packages(modules: list[str]) -> set[str]:
    """Of others: what is neither ours nor Python's own."""
    return {name.partition(".")[0] for name in modules} - STANDARD - {"runtime", "__main__"}


async def test_nothing_but_this_is_loaded_before_the_first_record() -> None:
    modules = await loaded_by("import runtime.enclave.__main__, trio, runtime.enclave.platform, runtime.enclave.run")
    own = {f"enclave.{name}" for name in BEFORE_THE_FIRST_RECORD.split()} | set(PURE.split())
    ours = {name.removeprefix("runtime.") for name in modules if name.startswith("runtime.")}
    assert ours - {"enclave", "net", "protocol"} == own
    assert packages(modules) <= PACKAGES
    assert not NEVER & {name.partition(".")[0] for name in modules}


async def test_python_alone_runs_before_the_heartbeat() -> None:
    modules = await loaded_by("import runtime.enclave.__main__")
    assert packages(modules) == set()
    assert not {"ssl", "logging", "subprocess"} & set(modules)


async def test_all_that_a_boot_needs_is_few_modules_of_which_none_parses_tls_certificates_or_http() -> None:
    modules = await loaded_by(ALL)
    assert packages(modules) <= PACKAGES
    assert not NEVER & {name.partition(".")[0] for name in modules}
    assert len(modules) <= MOST, "each costs a start about half a millisecond, and memory for as long as the machine runs"


PROCESS = """
[[process]]
name = "app"
command = ["sleep", "infinity"]
user = "1000:1000"
"""


async def test_a_machine_that_was_ready_has_loaded_nothing_more(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        image = world.image(tables=PROCESS + local_api())
        world.register(image)
        async with running_machine(world, image, program="tests.scenarios.telling_machine") as machine:
            with trio.fail_after(PATIENCE):
                await machine.parent.until_state("ready")
        modules: list[str] = json.loads((world.folder / "machine" / "modules.json").read_text())
    loaded = set(await loaded_by(ALL))
    assert not NEVER - STANDARD & set(modules)
    later = {name for name in modules if name.partition(".")[0] in {"runtime", *PACKAGES} and name not in loaded}
    assert [name for name in sorted(later) if not name.startswith("runtime.simulator")] == []


async def test_the_fork_server_has_loaded_what_its_workers_may_not_be_able_to_read() -> None:
    assert "encodings.idna" in await loaded_by("import runtime.enclave.worker.__main__"), (
        "socket.getaddrinfo loads it, whatever the name"
    )
