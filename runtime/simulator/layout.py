"""Where everything lies in the folder of a simulation. Only paths, so that every program of it agrees on them."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from runtime.net.endpoint import Unix

_SOCKET_PATH_MAX = 107
_LONGEST_NAME = "/parent-4294967295.sock"


@dataclass(frozen=True, slots=True)
class Layout:
    """The folder `base`. Secrets are in `hidden` folders, which the customer's process does not see."""

    base: Path

    @property
    def nsm(self) -> Path:
        """The development root of attestation, with its key."""
        return self.base / "nsm"

    @property
    def provisioner(self) -> Path:
        """Keys, database and provisioner.toml."""
        return self.base / "provisioner"

    @property
    def parent(self) -> Path:
        """Certificate, key, parent.toml and events.jsonl."""
        return self.base / "parent"

    @property
    def enclave(self) -> Path:
        """What is baked: enclave.toml and image.json."""
        return self.base / "enclave"

    @property
    def root(self) -> Path:
        """Where the customer's root file system is mounted, in the enclave's own mount namespace."""
        return self.base / "root"

    @property
    def logs(self) -> Path:
        """Standard error of every program."""
        return self.base / "log"

    @property
    def ca(self) -> Path:
        """The issuing CA's certificate, for clients."""
        return self.base / "ca.pem"

    @property
    def attestation_root(self) -> Path:
        """The development root's certificate, for verifiers."""
        return self.base / "root.pem"

    @property
    def reference(self) -> Path:
        """The reference values of the simulated image."""
        return self.base / "reference.toml"

    @property
    def ready(self) -> Path:
        """Written last, when all is up."""
        return self.base / "ready.json"

    @property
    def events(self) -> Path:
        """What the parent saw, one JSON object a line."""
        return self.parent / "events.jsonl"

    @property
    def pid(self) -> Path:
        """The process id of the enclave's first process, as this machine counts."""
        return self.base / "enclave.pid"

    @property
    def sockets(self) -> Path:
        """The folder of the simulated vsock; elsewhere when this folder's own path is too long for a socket address."""
        link = self.base / "vsock"
        return link.resolve() if link.is_symlink() else link

    @property
    def device(self) -> Path:
        """The socket that stands for /dev/nsm."""
        return self.sockets / "nsm.sock"

    @property
    def vsock_device(self) -> Path:
        """The socket by which a virtual machine gets its vsock."""
        return self.sockets / "vsock.sock"

    @property
    def machine(self) -> Path:
        """What a virtual machine boots: the kernel and the ramdisk of an image."""
        return self.base / "machine"

    def parent_port(self, port: int) -> Unix:
        """A vsock port of the parent."""
        return Unix(str(self.sockets / f"parent-{port}.sock"))

    def open_parent_ports(self) -> None:
        """Lets every user connect to the parent's ports, as vsock does."""
        for path in self.sockets.glob("parent-*.sock"):
            path.chmod(0o666)

    def enclave_port(self, port: int) -> Unix:
        """A vsock port of the enclave."""
        return Unix(str(self.sockets / f"own-{port}.sock"))

    def hidden(self) -> tuple[Path, ...]:
        """The folders that a customer's process must not see."""
        return (self.nsm, self.provisioner, self.parent, self.sockets, self.logs)

    def clear(self) -> None:
        """Removes what only a running simulation has: ready.json and the sockets. Raises OSError."""
        self.ready.unlink(missing_ok=True)
        for path in self.sockets.glob("*.sock"):
            path.unlink()
        link = self.base / "vsock"
        if link.is_symlink() and link.exists():
            self.sockets.rmdir()
            link.unlink()

    def make(self) -> None:
        """Makes the folders, readable by their owner alone. Raises OSError."""
        self.base.mkdir(mode=0o755, parents=True, exist_ok=True)
        for folder in (self.nsm, self.parent, self.logs):
            folder.mkdir(mode=0o700, exist_ok=True)
        for folder in (self.enclave, self.root):
            folder.mkdir(mode=0o755, exist_ok=True)
        link = self.base / "vsock"
        if link.is_symlink() and not link.exists():
            link.unlink()
        if len(str(link)) + len(_LONGEST_NAME) > _SOCKET_PATH_MAX and not link.exists():
            link.symlink_to(tempfile.mkdtemp(prefix="enclave-"))
        # Who may open a vsock is not a question of users; the device is: its socket is for its owner alone.
        link.mkdir(mode=0o711, exist_ok=True)
        link.resolve().chmod(0o711)
