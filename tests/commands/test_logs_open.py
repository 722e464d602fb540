"""`enclave logs-open`: what an enclave sealed comes out of the parent's file, and whatever the parent did to it on the way shows."""

import base64
import io
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from runtime.cli import main
from runtime.enclave.link import ParentLink
from runtime.enclave.logs.output import open_logs
from runtime.parent.console import Console
from runtime.protocol.sealed_logs import Batch, LogLine, LogRecipient, read_log_key
from tests.enclave.test_config import SMALLEST, loaded
from tests.support.link_ends import BOOT_ID, parent_side

KEY = "x25519-private:" + "QEBA" * 10 + "QEA="
RECIPIENT = str(LogRecipient(read_log_key(KEY).suite, read_log_key(KEY).public))
LINES = [b"%d %s" % (number, b"\x1b[31m\xff" if number == 2 else b"x" * 3000) for number in range(30)]

Record = dict[str, object]


async def sealed_events(*, boot_id: bytes = BOOT_ID, is_ended: bool = True) -> list[Record]:
    """What a real parent keeps of a real enclave's lines, over a connection that breaks in the middle."""
    events = io.StringIO()
    async with parent_side() as side:
        side.control._console = Console(io.StringIO(), events=events, clock=lambda: 0.0)
        streams: list[trio.SocketStream] = []

        async def connect() -> trio.SocketStream:
            streams.append(await side.wire.connect())
            return streams[-1]

        link = ParentLink(connect, boot_id=boot_id, on_drain=lambda _: None)
        logs = open_logs(loaded(f'{SMALLEST}[log]\nencrypt_to = "{RECIPIENT}"'), {}, link, boot_id=boot_id)
        output = logs.open("app", "stdout")
        await link.connect()
        side.nursery.start_soon(link.run)
        for line in LINES:
            output.feed(line + b"\n")
            if line.startswith(b"13 "):
                await trio.sleep(1)
                await trio.aclose_forcefully(streams[0])
        output.feed(b"the end without an end")
        output.close()
        if is_ended:
            link.finish_logs()
        with trio.fail_after(100):
            await link.flush()
    return [json.loads(line) for line in events.getvalue().splitlines()]


@pytest.fixture
def opening(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[list[Record]], tuple[int, list[Record]]]:
    """Gives exit status and printed objects for what a parent's file holds."""

    def run(events: list[Record]) -> tuple[int, list[Record]]:
        (tmp_path / "log.key").write_text(KEY)
        (tmp_path / "events").write_text("".join(json.dumps(record) + "\n" for record in events))
        status = main(["logs-open", "--key", str(tmp_path / "log.key"), str(tmp_path / "events"), "--json"])
        return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


Opening = Callable[[list[Record]], tuple[int, list[Record]]]


def sealed(events: list[Record]) -> list[int]:
    return [index for index, record in enumerate(events) if record["kind"] == "sealed"]


def faults(printed: list[Record]) -> list[object]:
    return [item["fault"] for item in printed if "fault" in item]


async def test_every_line_comes_out_once_and_the_parent_saw_none(autojump_clock: MockClock, opening: Opening) -> None:
    events = await sealed_events()
    assert "enclave.reconnected" in [record["event"] for record in events]
    assert not any(word in json.dumps(events) for word in ("xxxxxxxxxx", "the end", "stdout"))
    assert sum(int(str(events[index]["count"])) for index in sealed(events)) == len(LINES) + 1
    status, printed = opening(events)
    assert (status, faults(printed)) == (0, [])
    shown = [str(item["line"]) for item in printed]
    assert shown == [*(line.decode(errors="backslashreplace") for line in LINES), "the end without an end"]
    assert [item["partial"] for item in printed] == [False] * len(LINES) + [True]
    assert {(item["process"], item["stream"], item["dropped"], item["boot_id"]) for item in printed} == {
        ("app", "stdout", 0, BOOT_ID.hex())
    }


async def test_what_the_parent_leaves_out_repeats_reorders_or_alters_shows(autojump_clock: MockClock, opening: Opening) -> None:
    events = await sealed_events()
    first, second, third, *_, last = sealed(events)

    def with_(index: int, **changed: object) -> list[Record]:
        return [*events[:index], events[index] | changed, *events[index + 1 :]]

    swapped = [*events]
    swapped[second], swapped[third] = events[third], events[second]
    exchanged = [*events]
    exchanged[second], exchanged[third] = (
        events[index] | {"sealed": events[other]["sealed"]} for index, other in ((second, third), (third, second))
    )
    bits = str(events[second]["sealed"])
    played: list[tuple[list[Record], list[str]]] = [
        ([*events[:second], *events[second + 1 :]], ["missing"]),
        ([*events[:first], *events[third:]], ["missing"]),
        (swapped, ["missing", "out_of_order"]),
        ([*swapped[: third + 1], swapped[third], *swapped[third + 1 :]], ["missing", "out_of_order", "repeated"]),
        (exchanged, ["not_opened", "not_opened", "missing"]),
        ([*events[: third + 1], events[second], *events[third + 1 :]], ["repeated"]),
        (with_(second, sealed=bits[:-8] + ("AAAA" if bits[-8:-4] != "AAAA" else "BBBB") + bits[-4:]), ["not_opened", "missing"]),
        (with_(second, sequence=1 + int(str(events[second]["sequence"]))), ["not_opened", "missing"]),
        (with_(second, boot_id="00" * 16), ["not_opened", "missing", "no_end"]),
        ([*events[:last], *events[last + 1 :]], ["no_end"]),
    ]
    for given, expected in played:
        status, printed = opening(given)
        assert faults(printed) == expected
        assert status == (0 if expected == ["no_end"] else 1)


async def test_a_batch_that_the_parent_sealed_itself_is_foreign_between_true_ones(
    autojump_clock: MockClock, opening: Opening
) -> None:
    events = await sealed_events()
    _, second, *_ = sealed(events)
    sequence = int(str(events[second]["sequence"]))
    forged = Batch(token=bytes(16), number=2, lines=(LogLine(process="app", stream="stdout", data=b"all is well"),))
    data = LogRecipient.parse(RECIPIENT).seal(forged, boot_id=BOOT_ID, sequence=sequence)
    record = events[second] | {"sealed": base64.b64encode(data).decode()}
    status, printed = opening([*events[:second], record, *events[second + 1 :]])
    assert (status, faults(printed)) == (1, ["foreign", "missing"])
    assert "all is well" not in [item.get("line") for item in printed]


async def test_each_boot_is_a_series_of_its_own_and_only_the_last_may_lack_its_end(
    autojump_clock: MockClock, opening: Opening
) -> None:
    first, second = await sealed_events(is_ended=False), await sealed_events(boot_id=b"C" * 16, is_ended=False)
    status, printed = opening(second)
    assert (status, faults(printed)) == (0, ["no_end"])
    status, printed = opening([*first, *second])
    assert (status, faults(printed)) == (1, ["no_end", "no_end"])
    assert len(printed) == 2 * (len(LINES) + 1) + 2


async def test_another_key_opens_nothing(autojump_clock: MockClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = await sealed_events()
    (tmp_path / "events").write_text("".join(json.dumps(record) + "\n" for record in events))
    assert main(["logs-open", "--new-key", str(tmp_path / "other.key")]) == 0
    assert main(["logs-open", "--key", str(tmp_path / "other.key"), str(tmp_path / "events")]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith('encrypt_to = "x25519:')
    assert printed.out.count("\n") == 1
    assert printed.err.count("NOT_OPENED") == len(sealed(events))


async def test_lines_cannot_drive_a_terminal(autojump_clock: MockClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.key").write_text(KEY + "\n")
    (tmp_path / "events").write_text("".join(json.dumps(record) + "\n" for record in await sealed_events()))
    assert main(["logs-open", "--key", str(tmp_path / "log.key"), str(tmp_path / "events")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[2] == f"{BOOT_ID.hex()[:8]} app stdout | 2 \\x1b[31m\\xff"
    assert out[-1].endswith("the end without an end ...")


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[" * 100_000,
        '{"kind": "sealed"}',
        '{"kind": "sealed", "boot_id": "00", "sequence": 1, "sealed": ""}',
        '{"kind": "sealed", "boot_id": "%s", "sequence": 0, "sealed": ""}' % ("00" * 16),
        '{"kind": "sealed", "boot_id": "%s", "sequence": 1, "sealed": "*"}' % ("00" * 16),
        '{"kind": "sealed", "sealed": "%s"}' % ("A" * 300_000),
        "x" * 1_000_000,
    ],
    ids=range(8),
)
async def test_a_record_that_cannot_be_read_is_named_and_the_rest_is_read(
    line: str, autojump_clock: MockClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.key").write_text(KEY)
    events = [json.dumps(record) for record in await sealed_events()]
    (tmp_path / "events").write_text("\n".join([line, *events, "[]", '{"kind": "log"}', ""]))
    assert main(["logs-open", "--key", str(tmp_path / "log.key"), str(tmp_path / "events"), "--json"]) == 1
    printed = capsys.readouterr()
    assert printed.err == f"{tmp_path / 'events'}:1: a sealed record that cannot be read\n"
    assert printed.out.count("\n") == len(LINES) + 1


def test_keys_are_made_for_their_owner_alone_and_never_over_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = tmp_path / "log.key"
    for options, kind in (([], "x25519:"), (["--post-quantum"], "x-wing:")):
        assert main(["logs-open", "--new-key", str(name), *options]) == 0
        public = capsys.readouterr().out.split('"')[1]
        assert public.startswith(kind)
        key = read_log_key(name.read_text())
        assert LogRecipient.parse(public) == LogRecipient(key.suite, key.public)
        assert stat.S_IMODE(name.stat().st_mode) == 0o600
        assert loaded(f'{SMALLEST}[log]\nencrypt_to = "{public}"').log.encrypt_to == LogRecipient(key.suite, key.public)
        assert main(["logs-open", "--new-key", str(name)]) == 2
        assert read_log_key(name.read_text()).public == key.public
        name.unlink()


@pytest.mark.parametrize("content", [b"", b"x25519-private:AAAA", b"\xff", RECIPIENT.encode()])
def test_a_key_that_is_none_is_a_mistake_of_the_users(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.key").write_bytes(content)
    assert main(["logs-open", "--key", str(tmp_path / "log.key"), str(tmp_path / "events")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_files_that_are_not_there_or_not_named_are_a_mistake_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "log.key").write_text(KEY)
    assert main(["logs-open", "--key", str(tmp_path / "no.key"), "events"]) == 2
    assert main(["logs-open", "--key", str(tmp_path / "log.key")]) == 2
    assert main(["logs-open", "--key", str(tmp_path / "log.key"), str(tmp_path / "no events")]) == 2
