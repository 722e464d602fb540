"""Ordinary programs in the enclave's network namespace, which has loopback alone: what the rules allow works without any settings, and
nothing else gets a byte out, each attempt with its reason on record."""

import json
from collections import Counter
from pathlib import Path

import pytest
import trio

from runtime.protocol.egress_frames import Connect
from tests.egress.bypasses import FIRSTS, HOSTS, LOOPBACKS, PORTS, QUESTIONS
from tests.egress.policies import RULES
from tests.scenarios.clients import until
from tests.scenarios.egress_servers import dialling, servers
from tests.scenarios.machines import Machine, local_api, real_world, running_machine, write_script
from tests.scenarios.world import World

PROCESS = """
[[process]]
name = "app"
command = ["python3", "probe.py"]
restart = "never"
env = { HOME = "/tmp", CURL_HOME = "/tmp", GIT_CONFIG_NOSYSTEM = "1", PGCONNECT_TIMEOUT = "30" }
"""

ALLOWED = """
[egress]
allow = [
  { name = "api.test", ports = [443] },
  { suffix = "below.test", ports = [443, 80] },
  { name = "db.test", ports = [5432] },
  { name = "down.test", ports = [443, 7] },
]
"""

ORDINARY = r"""
import json, os, subprocess, sys
folder = os.path.dirname(os.path.abspath(__file__))
ca = folder + "/ca.pem"
PYTHON = "import ssl, sys, urllib.request as r; c = ssl.create_default_context(cafile=sys.argv[1]); " \
         "print(r.urlopen('https://api.test/hello.txt', context=c).read().decode())"
NODE = "fetch('https://a.below.test/hello.txt').then(r => r.text()).then(console.log)"
commands = {
    "curl": ["curl", "-sS", "--cacert", ca, "https://api.test/hello.txt"],
    "python": ["python3", "-c", PYTHON, ca],
    "node": ["node", "-e", NODE],
    "psql": ["psql", "-h", "db.test", "-U", "a", "-d", "a", "-At", "-c", "select 42"],
    "git": ["git", "ls-remote", "http://git.below.test/repository.git"],
    "curl denied": ["curl", "-sS", "https://evil.test/"],
    "curl port": ["curl", "-sS", "https://api.test:444/"],
    "curl address": ["curl", "-sS", "https://192.0.2.1/"],
    "node denied": ["node", "-e", "fetch('https://evil.test/').catch(e => { console.log(e.cause.code) })"],
    "git denied": ["git", "ls-remote", "https://evil.test/repository.git"],
    "psql denied": ["psql", "-h", "evil.test", "-c", "select 1"],
    "curl refused outside": ["curl", "-sS", "telnet://down.test:7"],
}
found = {}
for name, command in commands.items():
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
                          env={**os.environ, "NODE_EXTRA_CA_CERTS": ca})
    found[name] = [done.returncode, done.stdout[-300:], done.stderr[-300:]]
print(json.dumps(found))
"""


def decisions(machine: Machine) -> list[dict[str, object]]:
    """The lines of the egress log so far."""
    return [json.loads(line) for line in machine.lines("egress:decisions")]


async def report(machine: Machine) -> dict[str, list[object]] | None:
    """What the probe has found, once it has ended; None where this machine has no namespaces, and so no egress."""
    await until(lambda: bool(machine.lines("app")))  # which events overtake
    if machine.parent.journal("egress.unavailable"):
        return None
    return json.loads(machine.lines("app")[0])  # type: ignore[no-any-return] # the probe's own


async def test_ordinary_programs_reach_what_is_allowed_with_no_settings_and_nothing_else(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        image = world.image(tables=PROCESS + ALLOWED + local_api())
        world.register(image)
        write_script(world, "probe.py", ORDINARY)
        asked: list[Connect] = []
        with servers(tmp_path / "outside", names=("api.test", "a.below.test")) as ports:
            write_script(world, "ca.pem", (tmp_path / "outside" / "ca.pem").read_text())
            parent = world.parent()
            places = {
                ("api.test", 443): ports["https"],
                ("a.below.test", 443): ports["https"],
                ("git.below.test", 80): ports["http"],
                ("db.test", 5432): ports["postgres"],
            }
            parent.dial = dialling(world, places, asked)
            async with running_machine(world, image, parent=parent) as machine:
                found = await report(machine)
                if found is None:
                    return
                await until(lambda: any(each.get("host") == "down.test" and "port" in each for each in decisions(machine)))
                seen = decisions(machine)
    assert [found[name][:2] for name in ("curl", "python", "node", "psql")] == [
        [0, "hello from outside\n"],
        [0, "hello from outside\n\n"],
        [0, "hello from outside\n\n"],
        [0, "42\n"],
    ], found
    assert found["git"][0] == 0, found["git"]
    assert str(found["git"][1]).rstrip().endswith("refs/heads/main")
    assert {name: found[name][0] for name in ("curl denied", "curl port", "curl address")} == {
        "curl denied": 6,  # could not resolve
        "curl port": 7,  # could not connect
        "curl address": 7,
    }, found
    assert found["curl refused outside"][0] in (7, 56), "a reset, which it sees while it connects or when it reads"
    assert found["node denied"][1] in ("EAI_AGAIN\n", "ENOTFOUND\n")
    assert found["git denied"][0] == 128
    assert found["psql denied"][0] == 2
    assert {(each.host, each.port) for each in asked} == {*places, ("down.test", 7)}
    carried = {(each["host"], each["port"]): each for each in seen if each["way"] == "direct" and each["reason"] == "allowed"}
    assert set(carried) == set(places)
    assert carried["api.test", 443]["rule"] == 0
    assert all(each["sent"] and each["received"] for each in carried.values())
    assert {each["reason"] for each in seen if each["host"] == "evil.test"} == {"name_not_allowed"}


BYPASS = r"""
import errno, json, socket, sys
corpus = json.load(open("corpus.json"))
found = {"questions": [], "firsts": [], "loopbacks": [], "hosts": []}


def failure(act):
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    except (UnicodeError, ValueError) as error:
        return type(error).__name__
    return "nothing"


def ask(data):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(60 if data[1] else 0.2)
        asking.sendto(bytes.fromhex(data[0]), ("127.0.0.1", 53))
        try:
            return asking.recv(4096).hex()
        except TimeoutError:
            return ""


def send_first(data):
    with socket.create_connection((address, 443), timeout=60) as stream:
        stream.sendall(bytes.fromhex(data))
        stream.shutdown(socket.SHUT_WR)
        return stream.recv(1)


def connect(host, port, kind=socket.SOCK_STREAM):
    for family, _, _, _, at in socket.getaddrinfo(host, port, type=kind):
        with socket.socket(family, kind) as stream:
            stream.settimeout(60)
            stream.connect(at)
            stream.sendall(b"canary")
            stream.recv(1)


address = socket.getaddrinfo("api.example.com", 443, socket.AF_INET)[0][4][0]
found["questions"] = [ask(each) for each in corpus["questions"]]
found["firsts"] = [failure(lambda: send_first(each)) for each in corpus["firsts"]]
found["loopbacks"] = [failure(lambda: connect(*each)) for each in corpus["loopbacks"]]
found["hosts"] = [failure(lambda: connect(*each)) for each in corpus["hosts"]]
others = {
    "udp": failure(lambda: connect(address, 443, socket.SOCK_DGRAM)),
    "udp outside": failure(lambda: connect("192.0.2.1", 53, socket.SOCK_DGRAM)),
    "ipv6": failure(lambda: connect("2001:db8::1", 443)),
    "mapped": failure(lambda: connect("::ffff:192.0.2.1", 443)),
    "vsock": failure(lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)),
    "packet": failure(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "raw": failure(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)),
    "resolver taken": failure(lambda: socket.create_server(("127.0.0.1", 53))),
    "name taken": failure(lambda: socket.create_server((address, 443))),
    "resolv.conf": failure(lambda: open("/etc/resolv.conf", "w")),
}
found["others"] = list(others.values())
print(json.dumps(found))
"""

OTHERS = {
    "udp": {"ECONNREFUSED"},
    "udp outside": {"ENETUNREACH"},
    "ipv6": {"ENETUNREACH", "EADDRNOTAVAIL"},
    "mapped": {"ENETUNREACH"},
    "vsock": {"EAFNOSUPPORT"},
    "packet": {"EPERM"},
    "raw": {"EPERM"},
    "resolver taken": {"EADDRINUSE"},
    "name taken": {"EADDRINUSE"},
    "resolv.conf": {"EACCES", "EROFS"},
}
"""Of what no record is made: the kernel refuses it before anything of ours could see it."""


def corpus() -> str:
    """The attempts as the probe reads them. A host that names a place inside is left to the tests of the policy."""
    hosts = [(each.host, each.port) for each in (*HOSTS, *PORTS) if 0 < each.port < 65536 and each.host]
    return json.dumps(
        {
            "questions": [(each.data.hex(), each.reason != "dns_response") for each in QUESTIONS],
            "firsts": [each.data.hex() for each in FIRSTS],
            "loopbacks": [(each.address, each.port) for each in LOOPBACKS],
            "hosts": hosts,
        }
    )


@pytest.mark.parametrize("rules", [RULES, ""], ids=["rules", "none"])
async def test_no_bypass_gets_a_byte_out_and_each_has_its_reason(tmp_path: Path, rules: str) -> None:
    """With no rule at all the same attempts fail, for want of any."""
    async with real_world(tmp_path) as world:
        if not rules:
            await _nothing_is_allowed(world)
            return
        image = world.image(tables=PROCESS + rules + local_api())
        world.register(image)
        write_script(world, "probe.py", BYPASS)
        write_script(world, "corpus.json", corpus())
        asked: list[Connect] = []
        parent = world.parent()
        parent.dial = dialling(world, {}, asked)
        async with running_machine(world, image, parent=parent) as machine:
            found = await report(machine)
            if found is None:
                return
            wanted = Counter(each.reason for part in (QUESTIONS, FIRSTS, LOOPBACKS[1:4], LOOPBACKS[5:]) for each in part)
            wanted["not_tcp"] = 1
            await until(lambda: not wanted - Counter(str(each["reason"]) for each in decisions(machine)))
            seen = decisions(machine)
        assert asked == []
        assert not any(b"canary" in data for data in parent.recorded("egress", "out"))
    assert len(found["questions"]) + len(found["firsts"]) + len(found["loopbacks"]) + len(found["hosts"]) >= 170
    for question, answer in zip(QUESTIONS, found["questions"], strict=True):
        assert (answer == "") == (question.reason == "dns_response")
        assert "7f40" not in str(answer)[-8:], "an address of the pool"
    assert set(found["firsts"]) <= {"ECONNRESET", "EPIPE", "ENOTCONN"}, found["firsts"]
    assert set(found["loopbacks"]) == {"ECONNREFUSED"}
    assert "nothing" not in found["hosts"]
    others = dict(zip(OTHERS, found["others"], strict=True))
    assert {name: others[name] in OTHERS[name] for name in OTHERS} == dict.fromkeys(OTHERS, True), others
    assert {each["way"] for each in seen} == {"lookup", "direct"}


async def _nothing_is_allowed(world: World) -> None:
    image = world.image(tables=PROCESS + local_api())
    world.register(image)
    probe = """
import json, socket
def ask(name):
    try:
        socket.getaddrinfo(name, 443)
    except socket.gaierror as error:
        return error.errno
print(json.dumps([ask(name) for name in ("api.example.com", "provisioner.test")]))
"""
    write_script(world, "probe.py", probe)
    async with running_machine(world, image) as machine:
        await until(lambda: bool(machine.lines("app")))
        if machine.parent.journal("egress.unavailable"):
            return
        await until(lambda: len({each["host"] for each in decisions(machine)}) == 2)
        assert {each["reason"] for each in decisions(machine)} == {"list_empty"}
        assert all(code < 0 for code in json.loads(machine.lines("app")[0]))


async def test_while_the_parent_is_away_names_fail_and_when_it_is_back_they_do_not(tmp_path: Path) -> None:
    probe = """
import socket, time, sys
def ask():
    try:
        return socket.getaddrinfo("api.test", 443, socket.AF_INET)[0][4][0]
    except OSError as error:
        return "failed"
last = None
while True:
    found = ask()
    if found != last:
        print(found, flush=True)
        last = found
    time.sleep(0.05)
"""
    links: list[trio.SocketStream] = []
    is_away = False
    async with real_world(tmp_path) as world:
        image = world.image(tables=PROCESS + ALLOWED + local_api())
        world.register(image)
        write_script(world, "probe.py", probe)
        parent = world.parent()
        honest = parent.handle_control

        async def handle(stream: trio.SocketStream) -> None:
            links.append(stream)
            if not is_away:
                await honest(stream)

        parent.handle_control = handle  # type: ignore[method-assign] # what this parent does otherwise
        async with running_machine(world, image, parent=parent) as machine:
            await until(lambda: len(machine.lines("app")) > 0)
            if parent.journal("egress.unavailable"):
                return
            is_away = True
            count = len(links)
            await trio.aclose_forcefully(links[-1])
            with trio.fail_after(60):
                while len(links) < count + 3:
                    await trio.sleep(0.05)
            is_away = False
            await until(lambda: len(machine.lines("app")) >= 3)
            first, second, third = machine.lines("app")[:3]
            assert (first, second) == (third, "failed")
            assert first.startswith("127.64.")
