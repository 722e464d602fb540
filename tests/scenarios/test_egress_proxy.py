"""The explicit proxy in the enclave's network namespace: curl finds it by its environment, and reaches addresses that a rule names."""

import json
from pathlib import Path

from runtime.protocol.egress_frames import Connect
from tests.scenarios.egress_servers import dialling, servers
from tests.scenarios.machines import local_api, real_world, running_machine, write_script
from tests.scenarios.test_egress import PROCESS, decisions, report

RULES = """
[egress]
proxy = "tcp:127.0.0.1:3128"
allow = [
  { name = "api.test", ports = [443] },
  { cidr = "192.0.2.0/24", ports = [80, 443] },
]
"""

PROBE = r"""
import json, os, subprocess
ca = os.path.dirname(os.path.abspath(__file__)) + "/ca.pem"
commands = {
    "connect to an address": ["-k", "https://192.0.2.7/hello.txt"],
    "socks to an address": ["http://192.0.2.7/hello.txt"],
    "connect to a name": ["--cacert", ca, "https://api.test/hello.txt"],
    "socks to a name": ["--cacert", ca, "-x", "socks5h://127.0.0.1:3128", "https://api.test/hello.txt"],
    "socks to a name that was resolved": ["--cacert", ca, "-x", "socks5://127.0.0.1:3128", "https://api.test/hello.txt"],
    "another address": ["-k", "https://198.51.100.1/hello.txt"],
    "metadata": ["http://169.254.169.254/latest/meta-data/"],
    "another name": ["https://evil.test/"],
    "another port": ["https://api.test:444/"],
    "as an HTTP proxy": ["-x", "http://127.0.0.1:3128", "http://192.0.2.7/hello.txt"],
}
found = {}
for name, words in commands.items():
    done = subprocess.run(["curl", "-sS", *words], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    found[name] = [done.returncode, done.stdout[-300:], done.stderr[-300:]]
found["environment"] = sorted(f"{name}={value}" for name, value in os.environ.items() if "proxy" in name.lower())
print(json.dumps(found))
"""

HELLO = [0, "hello from outside\n"]


async def test_programs_reach_addresses_that_a_rule_names_through_the_proxy_and_no_others(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        image = world.image(tables=PROCESS + RULES + local_api())
        world.register(image)
        write_script(world, "probe.py", PROBE)
        asked: list[Connect] = []
        with servers(tmp_path / "outside", names=("api.test",)) as ports:
            write_script(world, "ca.pem", (tmp_path / "outside" / "ca.pem").read_text())
            parent = world.parent()
            places = {
                ("api.test", 443): ports["https"],
                ("192.0.2.7", 443): ports["https"],
                ("192.0.2.7", 80): ports["http"],
            }
            parent.dial = dialling(world, places, asked)
            async with running_machine(world, image, parent=parent) as machine:
                found = await report(machine)
                if found is None:
                    return
                wanted = {"address_not_allowed", "name_not_allowed", "port_not_allowed", "connect_method"}
                await machine.until(lambda: wanted <= {str(each["reason"]) for each in decisions(machine)})
                seen = decisions(machine)
    assert {name: found[name][:2] for name in found if " to a" in name} == {
        "connect to an address": HELLO,
        "socks to an address": HELLO,
        "connect to a name": HELLO,
        "socks to a name": HELLO,
        "socks to a name that was resolved": [97, ""],
    }, found
    refused = ("another address", "metadata", "another name", "another port")
    assert all(found[name][0] in {56, 97} and found[name][1] == "" for name in refused), found
    assert json.loads(str(found["as an HTTP proxy"][1]))["code"] == "connect_method"
    assert {(each.host, each.port) for each in asked} == set(places)
    assert {each["way"] for each in seen} >= {"connect", "socks"}
    assert "HTTPS_PROXY=http://127.0.0.1:3128" in found["environment"]
    assert "all_proxy=socks5h://127.0.0.1:3128" in found["environment"]
