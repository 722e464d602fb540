"""`enclave audit`: what happened, to whom, and precisely why, as text and as JSON."""

import json
from pathlib import Path

import pytest

from runtime.provisioner import audit
from runtime.provisioner.audit import AuditEntry
from tests.commands.provisioner_folder import Folder

TIME = 1_782_907_230.5
SHOWN = "2026-07-01T12:00:30.500Z"


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Folder:
    folder = Folder(tmp_path, capsys)
    store = folder.store()
    entries = [
        AuditEntry(event="ticket", enclave_id="a", detail={"request_id": "r1"}),
        AuditEntry(
            event="refused", enclave_id="b", reason="measurement_unknown", detail={"code": "refused", "why": "another image"}
        ),
        AuditEntry(event="refused", enclave_id="a", reason="ticket_reused", alarm=True, detail={"code": "refused"}),
        AuditEntry(event="refused", reason="malformed", detail={"why": "a\nline\x1b[31m \u202e and \u00e4"}),
    ]
    for seconds, entry in enumerate(entries):
        audit.record(store, entry, now=TIME + seconds)
    store.close()
    return folder


def test_entries_are_lines_oldest_first(folder: Folder) -> None:
    ran = folder.audit()
    assert (ran.status, ran.err) == (0, "")
    first, second, third, fourth = ran.out.splitlines()
    assert first.split() == ["1", SHOWN, "a", "ticket", "request_id=r1"]
    assert second.split() == [
        "2",
        "2026-07-01T12:00:31.500Z",
        "b",
        "refused",
        "measurement_unknown",
        "code=refused",
        "why=another",
        "image",
    ]
    assert "refused ticket_reused  ALARM  code=refused" in third
    assert fourth.split()[2] == "-"


def test_no_entry_can_write_on_the_terminal(folder: Folder) -> None:
    """What a peer sent is shown in escaped form: it makes no line of its own and moves no cursor."""
    out = folder.audit().out
    assert len(out.splitlines()) == 4
    assert "\x1b" not in out
    assert "\\x1b[31m \\u202e and \\xe4" in out
    assert out.isascii()


def test_the_same_as_json_is_one_object_a_line(folder: Folder) -> None:
    objects = [json.loads(line) for line in folder.audit("--json").out.splitlines()]
    assert [entry["sequence"] for entry in objects] == [1, 2, 3, 4]
    assert objects[0] == {
        "sequence": 1, "time": SHOWN, "event": "ticket", "enclave_id": "a", "reason": None, "alarm": False, "request_id": "r1",
    }  # fmt: skip
    assert objects[2]["alarm"] is True
    assert objects[3]["why"] == "a\nline\x1b[31m \u202e and \u00e4"


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (("--id", "a"), [1, 3]),
        (("--id", "nobody"), []),
        (("--after", "2"), [3, 4]),
        (("--after", "4"), []),
        (("--limit", "2"), [1, 2]),
        (("--after", "1", "--limit", "1"), [2]),
        (("--id", "a", "--after", "1"), [3]),
    ],
    ids=repr,
)
def test_a_part_of_the_log_can_be_asked_for(folder: Folder, words: tuple[str, ...], numbers: list[int]) -> None:
    ran = folder.audit("--json", *words)
    assert [json.loads(line)["sequence"] for line in ran.out.splitlines()] == numbers
    assert (ran.status, ran.err) == (0, "" if numbers else "nothing recorded\n")


def test_mistakes_are_one_line_with_exit_status_2(folder: Folder) -> None:
    absent = folder.run("audit", "-c", str(folder.path / "absent.toml")).refusal
    assert absent == f"enclave audit: {folder.path}/absent.toml: No such file or directory"
    ran = folder.audit("--after", "soon")
    assert (ran.status, ran.out) == (2, "")
    assert "invalid int value: 'soon'" in ran.err
