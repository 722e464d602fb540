"""Autobahn's own WebSocket cases against an echo server, directly and through the proxy: what the server passes, the proxy passes.

Groups 1 to 7 and 10, 247 cases, and 9 (large messages) when asked for; 12 and 13 are compression, which the echo server does not do.
"""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.conformance.launcher import NAME
from tests.conformance.outcome import Check
from tests.conformance.target import running
from tests.conformance.tools import note

ECHO = Path(__file__).with_name("echo.py")
_COMPRESSION = ["12.*", "13.*"]
_LARGE = ["9.*"]
_TIMEOUT = 1800.0
_PASSED = ("OK", "NON-STRICT", "INFORMATIONAL")
_SHOWN = 12
_DIRECT, _PROXIED = "direct", "proxied"


def judge(autobahn: Sequence[str], python: Path, *, large: bool) -> list[Check]:
    """Compares case by case: how the messages went, and how the connection was closed."""
    with running(upstream=[str(python), str(ECHO)]) as target, tempfile.TemporaryDirectory() as folder:
        servers = [
            {"agent": _DIRECT, "url": f"ws://127.0.0.1:{target.upstream}"},
            {"agent": _PROXIED, "url": f"wss://{NAME}:{target.port}"},
        ]
        specification = {
            "outdir": folder,
            "servers": servers,
            "cases": ["*"],
            "exclude-cases": _COMPRESSION + ([] if large else _LARGE),
            "exclude-agent-cases": {},
        }
        path = Path(folder) / "specification.json"
        path.write_text(json.dumps(specification))
        note("Autobahn's cases take a few minutes")
        finished = subprocess.run(
            [*autobahn, "-m", "fuzzingclient", "-s", str(path)],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        index = Path(folder) / "index.json"
        if not index.exists():
            raise RuntimeError(f"wstest failed: {finished.stderr[-500:]}")
        found: dict[str, dict[str, dict[str, str]]] = json.loads(index.read_text())
    return [compare(found.get(_DIRECT, {}), found.get(_PROXIED, {}))]


def compare(direct: dict[str, dict[str, str]], proxied: dict[str, dict[str, str]]) -> Check:
    """Of the cases by name, as Autobahn's index has them."""
    passed = [name for name, case in direct.items() if _is_passed(case)]
    lost = [name for name in passed if not _is_passed(proxied.get(name, {}))]
    return Check(
        name="what the echo server passes, the proxy passes",
        passed=bool(passed) and not lost,
        found=f"{len(passed) - len(lost)} of {len(passed)}",
        asked="all",
        notes=(
            f"{len(direct)} cases; the echo server itself passes {len(passed)}",
            *(f"case {name}: {proxied.get(name, {}).get('behavior', 'did not run')}" for name in lost[:_SHOWN]),
        ),
    )


def _is_passed(case: dict[str, str]) -> bool:
    return case.get("behavior") in _PASSED and case.get("behaviorClose") in _PASSED
