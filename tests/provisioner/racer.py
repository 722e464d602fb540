"""A provisioner of its own process on a shared database, for tests in which two of them race for one challenge.

Keys and database are the files that the processes share; the clock stands still at the bench's time.
"""

from collections.abc import Sequence
from multiprocessing.connection import Connection as Pipe
from multiprocessing.synchronize import Barrier
from pathlib import Path

from cryptography import x509

from runtime.provisioner.config import ProvisionerConfig
from runtime.provisioner.keys import load_keys
from runtime.provisioner.service import Caller, Failure, Service
from runtime.provisioner.store import Store
from tests.support.prov import ADDRESS, NOW, PROVISIONER_ID, UNLIMITED, Connection

Post = tuple[bytes, Connection]


def post(service: Service, message: bytes, connection: Connection, *, address: str = ADDRESS) -> bytes | str:
    """The release, or the code of the refusal."""
    caller = Caller(address=address, request_id="race", key_digest=None, exporter=connection.exporter)
    try:
        return service.evidence(message, caller)
    except Failure as failure:
        return failure.code


def race(folder: str, root: bytes, posts: Sequence[Post], barrier: Barrier, answers: Pipe) -> None:
    """Posts one message after the other, each at the very moment when the other process does."""
    store = Store(Path(folder) / "store.db")
    config = ProvisionerConfig(version=1, id=PROVISIONER_ID, directory=".", roots=("aws",), limits=UNLIMITED)
    roots = [x509.load_der_x509_certificate(root)]
    service = Service(config, load_keys(Path(folder) / "keys"), store, roots, NOW.timestamp)
    try:
        for message, connection in posts:
            barrier.wait(timeout=60)
            answers.send(post(service, message, connection))
    finally:
        store.close()
        answers.close()
