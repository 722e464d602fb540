"""Real ingress workers whose chains are swapped by PID 1: new handshakes get the new chain of their name in every worker, also in one
that is started afterwards, open connections keep theirs, and no session outlives its chain."""

import os
import signal
from contextlib import AsyncExitStack

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from runtime.net.clock import utc_now
from runtime.net.tls import TlsIdentity
from runtime.protocol.worker_link import Identities, WorkerIdentity
from tests.enclave.traffic.harness import HOST, Peer
from tests.enclave.worker.test_ingress_killed import SECONDS, client, is_served, leaf_of, pid_of, two_workers
from tests.support.certificates import make_ca

OTHER = "other.example"
CA = make_ca("swapped chains", utc_now())
CLIENTS = 12


def carried(identity: TlsIdentity) -> WorkerIdentity:
    key = identity.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return WorkerIdentity(identity.names, tuple(each.public_bytes(Encoding.DER) for each in identity.chain), key)


async def test_new_handshakes_get_the_new_chain_of_their_name_and_open_connections_keep_theirs() -> None:
    before = {name: CA.issue((name,)) for name in (HOST, OTHER)}
    after = {name: CA.issue((name,)) for name in (HOST, OTHER)}
    served = [carried(each) for each in before.values()]
    with trio.fail_after(SECONDS):
        async with two_workers(served) as (at, workers), AsyncExitStack() as stack:

            async def come(name: str) -> tuple[Peer, x509.Certificate]:
                peer = await client(stack, at, name)
                return peer, leaf_of(peer)

            staying = [await come(name) for _ in range(CLIENTS) for name in before]
            assert {leaf for _, leaf in staying} == {each.chain[0] for each in before.values()}
            served[:] = [carried(each) for each in after.values()]
            for worker in workers:
                worker.tell(Identities(tuple(served)))
            victim = pid_of(workers[0])
            os.kill(victim, signal.SIGKILL)
            while (process := workers[0]._process) is None or process.pid == victim:
                await trio.sleep(0.01)
            fresh = 0
            while fresh < 2 * CLIENTS:  # in a row: what the other was told may still be on its way
                name = (HOST, OTHER)[fresh % 2]
                peer, leaf = await come(name)
                assert leaf in {before[name].chain[0], after[name].chain[0]}
                assert await is_served(peer)
                fresh = fresh + 1 if leaf == after[name].chain[0] else 0
            for peer, leaf in staying:
                if await is_served(peer):  # it was not the victim's
                    assert leaf in {each.chain[0] for each in before.values()}
