"""The parent lies about the outside: another name's server, a server that is none, cut and changed bytes, names that are not there.

All that it gains is that nothing gets through: programs check certificates themselves, and what the rules see is the name alone.
"""

import json
from pathlib import Path

import trio

from runtime.net.endpoint import Tcp, connect
from runtime.protocol.egress_frames import Connect
from runtime.simulator.hostile_parent import GARBAGE, join
from tests.scenarios.egress_servers import servers
from tests.scenarios.machines import local_api, real_world, running_machine, write_script
from tests.scenarios.test_egress import PROCESS, decisions, report
from tests.scenarios.world import SERVER_NAME

RULES = """
[egress]
allow = [{ suffix = "lies.test", ports = [443] }]
"""

LIES = ("honest", "other", "garbage", "closed", "refused", "cut", "changed")

PROBE = r"""
import json, os, subprocess, sys
ca = os.path.dirname(os.path.abspath(__file__)) + "/ca.pem"
found = {}
for name in sys.argv[1:] + ["honest"]:
    done = subprocess.run(["curl", "-sS", "--max-time", "60", "--cacert", ca, "-H", "X-Secret: canary",
                           "https://" + name + ".lies.test/hello.txt"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    found[name] = [done.returncode, done.stdout[-300:], done.stderr[-300:]]
done = subprocess.run(["curl", "-sS", "https://evil.test/"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
found["evil"] = [done.returncode, done.stdout, done.stderr[-300:]]
print(json.dumps(found))
"""


async def test_a_parent_that_lies_about_the_outside_gains_denial_of_service_and_nothing_else(tmp_path: Path) -> None:
    names = tuple(f"{lie}.lies.test" for lie in LIES if lie != "other")
    process = PROCESS.replace('"probe.py"]', '"probe.py", ' + ", ".join(f'"{lie}"' for lie in LIES) + "]")
    seen: list[dict[str, object]] = []
    async with real_world(tmp_path) as world:
        image = world.image(tables=process + RULES + local_api())
        world.register(image)
        write_script(world, "probe.py", PROBE)
        asked: list[Connect] = []
        with servers(tmp_path / "outside", names=names) as ports, servers(tmp_path / "wrong", names=("evil.test",)) as wrong:
            both = [(tmp_path / place / "ca.pem").read_text() for place in ("outside", "wrong")]
            write_script(world, "ca.pem", "".join(both))  # the other server's certificate is trusted: for its own name
            parent = world.parent()

            async def dial(wanted: Connect) -> trio.SocketStream:
                if wanted.host == SERVER_NAME:
                    return await world.dial()
                asked.append(wanted)
                lie = wanted.host.partition(".")[0]
                match lie:
                    case "other":
                        return await connect(Tcp("127.0.0.1", wrong["https"]))
                    case "refused":
                        raise ConnectionRefusedError
                    case "garbage" | "closed" | "cut" | "changed":

                        async def lying(stream: trio.SocketStream) -> None:
                            await lie_to(stream, lie, ports["https"])

                        return await join(nursery, lying)
                    case _:
                        return await connect(Tcp("127.0.0.1", ports["https"]))

            parent.dial = dial
            async with trio.open_nursery() as nursery:
                async with running_machine(world, image, parent=parent) as machine:
                    found = await report(machine)
                    if found is not None:
                        await machine.until(lambda: any(each["host"] == "evil.test" for each in decisions(machine)))
                        seen = decisions(machine)
                nursery.cancel_scope.cancel()
            if found is None:
                return
    assert found["honest"][:2] == [0, "hello from outside\n"], found
    assert found["other"][0] == 60, "curl: the certificate is another's"
    for lie in ("garbage", "closed", "refused", "cut", "changed"):
        assert found[lie][0] in {35, 52, 56}, found[lie]
        assert found[lie][1] == ""
    assert found["evil"][0] == 6
    assert not any(b"canary" in data for data in parent.recorded("egress", "out"))
    assert {each.host for each in asked} == {f"{lie}.lies.test" for lie in LIES}
    assert {each["reason"] for each in seen if each["host"] == "evil.test"} == {"name_not_allowed"}
    assert json.dumps(seen).count("127.0.0.1") == 0, "no address decides, and none is recorded"


async def lie_to(enclave: trio.SocketStream, lie: str, port: int) -> None:
    """What a connection is that the parent makes up, or meddles with."""
    await enclave.receive_some(1)
    if lie == "garbage":
        await enclave.send_all(GARBAGE)
    if lie in {"garbage", "closed"}:
        return
    async with await connect(Tcp("127.0.0.1", port)) as server:
        await server.send_all(b"\x16" + bytes(await enclave.receive_some(65536)))
        answer = bytearray(await server.receive_some(65536))
        if lie == "changed":
            answer[len(answer) // 2] ^= 1
            await enclave.send_all(answer)
            await enclave.receive_some(65536)
        else:
            await enclave.send_all(answer[:-1])
