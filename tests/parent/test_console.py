"""What the console shows, and where."""

import io
import json

from runtime.parent.console import Console


def test_the_json_form_and_the_events_file_hold_one_object_a_line() -> None:
    stderr, events = io.StringIO(), io.StringIO()
    console = Console(stderr, as_json=True, events=events, clock=lambda: 0.0)
    console.show("log", "info", "app", {"stream": "stdout"}, line=b"\x1b\n\xff")
    console.show("journal", "info", "step", {"digest": b"\x01\x02", "count": 1})
    console.parent("ready", public="tcp:[::]:443")
    assert stderr.getvalue() == events.getvalue()
    records = [json.loads(line) for line in events.getvalue().splitlines()]
    assert records[0] == {
        "time": "1970-01-01T00:00:00.000+00:00",
        "kind": "log",
        "level": "info",
        "event": "app",
        "stream": "stdout",
        "line": "\x1b\n\\xff",
    }
    assert records[1]["digest"] == "0102"
    assert records[2]["public"] == "tcp:[::]:443"


def test_a_console_whose_reader_is_gone_does_not_end_the_parent() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    console = Console(Gone(), events=Gone())
    console.parent("ready")
    assert console.recent[0]["event"] == "ready"


def test_what_nobody_here_can_read_is_kept_in_the_file_and_not_shown() -> None:
    for as_json in (False, True):
        stderr, events = io.StringIO(), io.StringIO()
        console = Console(stderr, as_json=as_json, events=events, clock=lambda: 0.0)
        console.show("sealed", "info", "lines", {"sequence": 4, "count": 12}, kept={"sealed": "AAAA"})
        assert "AAAA" not in stderr.getvalue()
        assert "sealed" not in console.recent[0]
        assert json.loads(events.getvalue()) == {**console.recent[0], "sealed": "AAAA"}
        if not as_json:
            assert stderr.getvalue().endswith(" info    sealed lines sequence=4 count=12\n")
