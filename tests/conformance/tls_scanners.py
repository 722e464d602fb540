"""testssl.sh and sslyze: what a stranger's scan of the public port finds.

The leaf, its authority and the headers of the answer are the customer's; here they are as they should be, so that what is found is ours.
"""

import json
import subprocess
import tempfile
from pathlib import Path

from tests.conformance.launcher import NAME
from tests.conformance.outcome import Check
from tests.conformance.target import Target, running
from tests.conformance.tools import note

_HARMLESS = ("OK", "INFO", "LOW", "DEBUG")
_OF_THE_SCANNER = ("engine_problem", "scanTime", "service")
_QUIETLY = ("--quiet", "--color", "0", "--warnings", "batch", "--ip", "one")
_INTERMEDIATE = ("-m", "sslyze", "--mozilla_config=intermediate")
_TIMEOUT = 900.0


def judge_testssl(program: str) -> list[Check]:
    """No finding above "low"."""
    with running() as target, tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        note("testssl.sh takes a minute or two")
        subprocess.run(
            [program, *_QUIETLY, "--jsonfile", str(report), "--add-ca", str(target.ca), f"{NAME}:{target.port}"],
            cwd=folder,
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
        )
        findings: list[dict[str, str]] = json.loads(report.read_text())
    bad = [each for each in findings if each["severity"] not in _HARMLESS and each["id"] not in _OF_THE_SCANNER]
    low = [each for each in findings if each["severity"] == "LOW"]
    return [
        Check(
            name="no finding above low",
            passed=not bad and len(findings) > 100,
            found=f"{len(bad)} of {len(findings)} findings, {len(low)} low",
            asked="0",
            notes=tuple(f"{each['severity']} {each['id']}: {each['finding']}" for each in bad + low),
        )
    ]


def judge_sslyze(python: Path) -> list[Check]:
    """Mozilla's profile "intermediate"."""
    with running() as target:
        finished = _sslyze(python, target)
    said = finished.stdout.partition("COMPLIANCE AGAINST")[2].splitlines()[3:]
    return [
        Check(
            name='Mozilla\'s "intermediate" profile',
            passed=finished.returncode == 0 and "OK - Compliant" in finished.stdout,
            found="compliant" if finished.returncode == 0 else "not compliant",
            asked="compliant",
            notes=() if finished.returncode == 0 else tuple(line.strip() for line in said if line.strip()),
        )
    ]


def _sslyze(python: Path, target: Target) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(python), *_INTERMEDIATE, "--certinfo_ca_file", str(target.ca), f"{NAME}:{target.port}"],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
