"""The resolver inside beside unbound and dnsmasq, under dnsperf, in one run:

    python -m tests.egress.measure_resolvers

All three answer an allowed name with a local address and refuse another. Prints one JSON object: questions a second, and microseconds of
CPU for each. Needs dnsperf, unbound and dnsmasq (Debian: dnsperf, unbound, dnsmasq-base).
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.processes import cpu_ns

NAMES = ("api.example.com", "db.example.net", "evil.test", "other.test")
SECONDS = 4

OURS = """
import socket, sys, trio
from runtime.enclave.traffic.egress_log import EgressLog
from runtime.enclave.traffic.resolver import LoopbackNames
from runtime.enclave.traffic.resolver_serve import resolver, serve_datagrams
from tests.egress.policies import policy


async def main():
    rules = policy()
    log = EgressLog(lambda lines: None, lambda numbers: None)
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind(("127.0.0.1", int(sys.argv[1])))
    answer = resolver(rules, LoopbackNames(rules.exact_names()), is_link_up=lambda: True, record=log.lookup)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        await serve_datagrams(bound, answer)


trio.run(main)
"""

UNBOUND = """
server:
  interface: 127.0.0.1@{port}
  num-threads: 1
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: ""
  use-syslog: no
  logfile: "{folder}/unbound.log"
  log-local-actions: yes
  local-zone: "." refuse
  local-zone: "api.example.com." static
  local-data: "api.example.com. 60 A 127.64.0.1"
  local-zone: "db.example.net." static
  local-data: "db.example.net. 60 A 127.64.0.2"
"""


@contextmanager
def _started(command: list[str], log: Path) -> Iterator[int]:
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def _measure(port: int, pid: int, questions: Path) -> dict[str, float]:
    dnsperf = ["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(questions), "-c", "4"]
    for _ in range(40):  # until it answers
        if (
            "Queries completed:    0"
            not in subprocess.run([*dnsperf, "-n", "1", "-t", "1"], capture_output=True, text=True, check=False).stdout
        ):
            break
    before = cpu_ns((pid,))
    said = subprocess.run([*dnsperf, "-l", str(SECONDS)], capture_output=True, text=True, check=True).stdout
    spent = cpu_ns((pid,)) - before
    done = int(re.search(r"Queries completed:\s+(\d+)", said)[1])  # type: ignore[index] # dnsperf says it
    lost = int(re.search(r"Queries lost:\s+(\d+)", said)[1])  # type: ignore[index] # as above
    return {"a_second": round(done / SECONDS), "lost": lost, "cpu_us": round(spent / 1000 / done, 1)}


def main() -> int:
    """Measures all three."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        questions = folder / "questions"
        questions.write_text("".join(f"{each} A\n" for each in NAMES))
        (folder / "unbound.conf").write_text(UNBOUND.format(port=5402, folder=folder))
        dnsmasq = ["dnsmasq", "-k", "-p", "5403", "-a", "127.0.0.1", "-R", "-h", "-z", "-q", f"--log-facility={folder}/dnsmasq.log"]
        dnsmasq += [
            "-C",
            "/dev/null",
            "-u",
            "root",
            "--pid-file=",
            "-A",
            "/api.example.com/127.64.0.1",
            "-A",
            "/db.example.net/127.64.0.2",
        ]
        commands = {
            "ours": (5401, [sys.executable, "-c", OURS, "5401"]),
            "unbound": (5402, ["unbound", "-d", "-c", str(folder / "unbound.conf")]),
            "dnsmasq": (5403, dnsmasq),
        }
        found = {}
        for subject, (port, command) in commands.items():
            with _started(command, folder / f"{subject}.out") as pid:
                found[subject] = _measure(port, pid, questions)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
