"""The sentinel of a ramdisk: whole, cut, missing, wrong."""

from pathlib import Path

import pytest

from runtime.enclave.init.ramdisk import NOT_COUNTED, SENTINEL, TREES, check_ramdisks, count_entries
from runtime.enclave.init.steps import Report, take


def tree(folder: Path) -> Path:
    """A tree of six entries, the sentinel not yet among them."""
    (folder / "opt/rt").mkdir(parents=True)
    (folder / "opt/rt/python").write_text("#!")
    (folder / "lib").symlink_to("usr/lib")
    (folder / "opt/rt/again").hardlink_to(folder / "opt/rt/python")
    (folder / "init").write_text("#!")
    return folder


def judged(*trees: Path) -> Report:
    return take([("ramdisk", lambda: check_ramdisks(trees))])


def complete(folder: Path, entries: int) -> Path:
    (folder / SENTINEL).write_text(f"{entries}\n")
    return folder


def test_a_tree_with_as_many_entries_as_its_sentinel_says_is_whole(tmp_path: Path) -> None:
    assert judged(complete(tree(tmp_path), 7)).taken == ("ramdisk",)


def test_links_are_counted_and_not_followed(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    (folder / "loop").symlink_to(".")
    assert count_entries(folder) == 7


def test_what_is_mounted_over_or_belongs_to_another_archive_is_not_counted(tmp_path: Path) -> None:
    folder = complete(tree(tmp_path), 7)
    for name in NOT_COUNTED:
        (folder / name / "below").mkdir(parents=True)
    assert count_entries(folder) == 7
    (folder / "opt/dev").mkdir()
    assert count_entries(folder) == 8, "only at the top are these names special"


def test_more_entries_than_said_are_no_fault(tmp_path: Path) -> None:
    assert judged(complete(tree(tmp_path), 3)).fatal is None


@pytest.mark.parametrize(
    "text",
    ["", "7", "07\n", "-7\n", "+7\n", " 7\n", "7 \n", "7\n\n", "seven\n", "0\n", "1000000000\n", "\u0667\n"],
)
def test_a_sentinel_that_is_not_exactly_a_number_is_refused(tmp_path: Path, text: str) -> None:
    (tree(tmp_path) / SENTINEL).write_text(text)
    fatal = judged(tmp_path).fatal
    assert fatal is not None
    assert fatal.reason == "ramdisk_incomplete"


def test_a_tree_without_its_sentinel_is_refused(tmp_path: Path) -> None:
    fatal = judged(tree(tmp_path)).fatal
    assert fatal is not None
    assert (fatal.reason, fatal.errno) == ("ramdisk_incomplete", "ENOENT")


def test_a_tree_that_lost_an_entry_is_refused_though_its_sentinel_came(tmp_path: Path) -> None:
    folder = complete(tree(tmp_path), 7)
    (folder / "opt/rt/python").unlink()
    fatal = judged(folder).fatal
    assert fatal is not None
    assert (fatal.reason, fatal.detail) == ("ramdisk_incomplete", f"{folder} has 6 of 7 entries")


def test_every_tree_must_be_whole(tmp_path: Path) -> None:
    (tmp_path / "rootfs").mkdir()
    first = complete(tree(tmp_path), 7)
    assert judged(first).fatal is None
    assert judged(first, tmp_path / "rootfs").fatal is not None, "the customer's ramdisk was never begun"
    assert [str(path) for path in TREES] == ["/", "/rootfs"]
