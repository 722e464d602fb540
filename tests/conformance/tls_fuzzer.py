"""tlsfuzzer's server scripts: every answer to a wrong or odd handshake, alert numbers included."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.conformance.fuzzer_scripts import LIBRARY, SCRIPTS, Script
from tests.conformance.outcome import Check
from tests.conformance.target import UPSTREAM, Target, running
from tests.conformance.tools import note

NOT_PASSED_MAX = 2
_TIMEOUT = 300.0
_SHOWN = 4
_SUMMARY = re.compile(r"^(TOTAL|SKIP|PASS|XFAIL|FAIL|XPASS): (\d+)", re.MULTILINE)
_FAILED = re.compile(r"^\t'(.*)'$", re.MULTILINE)


def judge(python: Path, checkout: Path) -> list[Check]:
    """What is counted, and what is OpenSSL's own; the notes name each script that is not passed, its probes, and the reason."""
    with (
        running(key="rsa", mode="http") as answering,
        running(key="rsa", mode="tcp", upstream=[*UPSTREAM, "--echo"]) as echoing,
    ):
        counted = _run_all(python, checkout, SCRIPTS, answering, echoing)
        library = _run_all(python, checkout, LIBRARY, answering, echoing)
    return [
        Check(
            name="server scripts for TLS 1.2 and 1.3",
            passed=len(counted) <= NOT_PASSED_MAX,
            found=f"{len(SCRIPTS) - len(counted)} of {len(SCRIPTS)}",
            asked=f"all but {NOT_PASSED_MAX}",
            notes=tuple(f"{script.name}: {text}" for script, text in counted),
        ),
        Check(
            name="scripts whose answer is OpenSSL's own",
            passed=True,
            found=f"{len(LIBRARY) - len(library)} of {len(LIBRARY)}",
            asked="not counted",
            notes=tuple(f"{script.name}: {text}: {script.why}" for script, text in library),
        ),
    ]


def _run_all(
    python: Path, checkout: Path, scripts: Sequence[Script], answering: Target, echoing: Target
) -> list[tuple[Script, str]]:
    """Those that are not passed."""
    not_passed = []
    for number, script in enumerate(scripts, 1):
        text, is_passed = run_script(python, checkout, script, (echoing if script.echoes else answering).port)
        note(f"tlsfuzzer {number} of {len(scripts)}: {script.name}: {text}")
        if not is_passed:
            not_passed.append((script, text))
    return not_passed


def run_script(python: Path, checkout: Path, script: Script, port: int) -> tuple[str, bool]:
    """What the script says in a line, and whether it is passed."""
    command = [str(python), f"scripts/test-{script.name}.py", "-p", str(port), *script.arguments]
    try:
        finished = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return "did not end", False
    return verdict(script, finished.stdout, finished.stderr)


def verdict(script: Script, output: str, errors: str = "") -> tuple[str, bool]:
    """As `run_script`, of what the script printed."""
    counts = dict(_SUMMARY.findall(output))
    if "TOTAL" not in counts:
        return f"broke: {(errors or output).strip()[-200:]}", False
    names = sorted(set(_FAILED.findall(output.partition("FAILED:")[2])))
    failed = [name for name in names if not (script.apart and re.fullmatch(script.apart, name))]
    shown = "".join(f" | {name}" for name in failed[:_SHOWN]) + (" | …" if len(failed) > _SHOWN else "")
    is_passed = not failed and int(counts["PASS"]) > 0 and (counts["FAIL"] == "0" or bool(names))
    return f"{counts['PASS']} probes passed, {len(failed)} not{shown}", is_passed
