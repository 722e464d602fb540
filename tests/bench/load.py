"""The load: wrk as fast as it goes, h2load at a fixed rate, and connections that stay idle."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.bench.figures import BenchError, Handshake, WrkSummary, percentile, read_h2load, read_handshake, read_wrk
from tests.bench.processes import read_line, started
from tests.bench.site import NAME, Site

_PATIENCE = 60.0
_SKIP_SECONDS = 0.5


def wrk(
    site: Site,
    port: int,
    path: str,
    *,
    connections: int,
    seconds: int,
    headers: tuple[str, ...] = (),
    uploads: bool = False,
    least: int = 1,
) -> WrkSummary:
    """A closed loop: each connection asks again as soon as it has its answer. Raises `BenchError`, also for fewer than `least` answers."""
    script = site.upload if uploads else site.done
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script)]
    for header in headers:
        command += ["-H", header]
    return read_wrk(_run([*command, f"https://{NAME}:{port}{path}"], site, seconds), least=least)


@dataclass(frozen=True, slots=True, kw_only=True)
class AtRate:
    """Microseconds from a request to its answer; how many requests there were in all."""

    requests: int
    p50: float
    p99: float


def at_rate(site: Site, url: str, *, connections: int, per_second: int, seconds: int) -> AtRate:
    """At a fixed rate, over TLS with a PROXY header in front or without both, as the URL says. Raises `BenchError`.

    Each connection asks `per_second / connections` times a second. They begin one after the other, evenly over that time, so that
    requests come evenly too and not in bursts.
    """
    log = site.folder / "h2load.log"
    log.unlink(missing_ok=True)
    total = round(per_second * (seconds + _SKIP_SECONDS))
    period = round(1000 / per_second, 3)
    command = ["h2load", "--h1", "-t1", f"-c{connections}", f"-n{total}", "-r1", f"--rate-period={period:g}ms"]
    command += [f"--rps={per_second / connections:g}", f"--log-file={log}", url]
    output = _run(command, site, seconds, proxy_header=url.startswith("https:"))
    if not log.exists():
        raise BenchError(f"h2load wrote no log: {output[-300:].strip()!r}")
    times = read_h2load(log.read_text(), skip_seconds=_SKIP_SECONDS)
    return AtRate(requests=total, p50=percentile(times, 50), p99=percentile(times, 99))


def handshake(site: Site, port: int) -> Handshake:
    """What a load generator and the subject agree on."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", NAME, "-brief"]
    return read_handshake(_run(command, site, 5))


@dataclass(slots=True)
class Idle:
    """Connections that are open and have had one answer each."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def grow_to(self, count: int) -> None:
        """Opens more, until there are `count`. Raises `BenchError`."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # why it ended is in its log
            self.process.stdin.write(f"{count}\n".encode())
        said = json.loads(read_line(self.process, "the holder of idle connections", self.log))
        if said != count:
            raise BenchError(f"only {said} of {count} idle connections could be opened")

    def alive(self) -> int:
        """How many of them the subject has not closed."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"alive\n")
        return int(read_line(self.process, "the holder of idle connections", self.log))


@contextmanager
def idle_connections(site: Site, port: int) -> Iterator[Idle]:
    """They are closed at the end of the block."""
    log = site.folder / "idle.log"
    command = [sys.executable, "-m", "tests.bench.idle", str(port)]
    with started(command, log=log, environment=site.client_environment(proxy_header=False), speaks=True) as process:
        yield Idle(process, log)


def _run(command: list[str], site: Site, seconds: int, *, proxy_header: bool = True) -> str:
    environment = site.client_environment(proxy_header=proxy_header)
    try:
        finished = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=seconds + _PATIENCE,
            check=False,
        )
    except FileNotFoundError:
        raise BenchError(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise BenchError(f"{command[0]} did not end") from None
    output = finished.stdout.decode(errors="replace")
    if finished.returncode != 0:
        raise BenchError(f"{command[0]} failed: {output[-300:].strip()!r}")
    return output
