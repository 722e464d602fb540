"""`--only-process -c enclave.toml`: what the first process of the file would get and lose in an enclave, as far as there is one here."""

import os
from dataclasses import replace
from pathlib import Path

from runtime.enclave.config import load_enclave_config
from runtime.enclave.config_process import NOBODY
from runtime.enclave.process.command import Command
from runtime.enclave.process.isolation import Isolation
from runtime.enclave.process.limits import resource_limits
from runtime.enclave.process.seccomp import customer_filter


def with_settings(command: Command, path: Path) -> tuple[Command, float]:
    """The command with the settings of the first process in the file, and that process's `stop_grace`.

    Its variables are added to the inherited ones. Root file system and control group stay; secrets there are none. Raises OSError,
    `TOMLDecodeError` or `SettingsError`.
    """
    config = load_enclave_config(path.read_bytes(), str(path))
    process = config.process[0]
    own = {os.fsencode(name): os.fsencode(value) for name, value in process.env.items()}
    inherited = [entry for entry in command.environment if entry.partition(b"=")[0] not in own]
    user = process.user or NOBODY
    isolation = Isolation(
        uid=user.uid,
        gid=user.gid,
        groups=process.groups,
        root=None,
        directory=process.workdir or str(Path.cwd()),
        umask=process.umask,
        limits=resource_limits(process, config.limits, has_cgroup=False),
        is_privileged=os.geteuid() == 0,
        filter=customer_filter(os.uname().machine),
    )
    environment = [*inherited, *(name + b"=" + value for name, value in own.items())]
    return replace(command, environment=environment, restrict=isolation.restrict), process.stop_grace
