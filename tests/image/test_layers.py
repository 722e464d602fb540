"""Layers over each other, and the archive that comes of them: as container runtimes do it, or one clear error."""

import io
import tarfile
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.image.contents import BadImage, Body, Node, Tree, clean_path, shown
from runtime.image.cpio import write_cpio
from runtime.image.layers import apply_layer
from runtime.image.spool import Spool
from tests.image.trees import Entry, file, flattened, folder, hard, image, kind_of, layer, link


def test_an_upper_layer_replaces_files_and_keeps_what_is_beside_them() -> None:
    found = image(layer(folder("etc"), file("etc/a", b"1"), file("etc/b", b"2")), layer(file("etc/a", b"three", mode=0o600)))
    assert {name: entry.data for name, entry in found.items()} == {"etc": b"", "etc/a": b"three", "etc/b": b"2"}
    assert found["etc/a"].mode & 0o777 == 0o600


def test_owners_modes_devices_and_setuid_survive() -> None:
    found = image(
        layer(
            Entry(name="bin/su", data=b"su", mode=0o4755, uid=0, gid=7),
            Entry(name="home", kind=tarfile.DIRTYPE, mode=0o1777, uid=1000, gid=1000),
            Entry(name="dev/null", kind=tarfile.CHRTYPE, mode=0o666, device=(1, 3)),
            Entry(name="run/pipe", kind=tarfile.FIFOTYPE, mode=0o600),
        )
    )
    assert (found["bin/su"].mode & 0o7777, found["bin/su"].gid) == (0o4755, 7)
    assert (found["home"].mode & 0o7777, found["home"].uid) == (0o1777, 1000)
    assert (kind_of(found["dev/null"]), found["dev/null"].device) == ("c", (1, 3))
    assert kind_of(found["run/pipe"]) == "p"


@pytest.mark.parametrize("order", [1, -1], ids=["whiteout last", "whiteout first"])
def test_a_whiteout_hides_lower_layers_and_nothing_of_its_own(order: int) -> None:
    lower = layer(file("d/old"), file("d/kept"), file("e/x"))
    upper = [file("d/new"), file(".wh.e"), file("e/y"), file("d/.wh.old")]
    assert set(image(lower, layer(*upper[::order]))) == {"d", "d/kept", "d/new", "e", "e/y"}


@pytest.mark.parametrize("order", [1, -1], ids=["marker last", "marker first"])
def test_an_opaque_folder_shows_its_own_layer_alone(order: int) -> None:
    lower = layer(file("d/old"), file("d/sub/old"), file("other"))
    upper = [folder("d"), file("d/new"), file("d/sub/new"), file("d/.wh..wh..opq")]
    assert set(image(lower, layer(*upper[::order]))) == {"d", "d/new", "d/sub", "d/sub/new", "other"}


def test_what_aufs_kept_for_itself_is_left_out() -> None:
    assert set(image(layer(file("a"), file(".wh..wh.plnk/1"), file(".wh..wh.aufs")))) == {"a", ".wh..wh.plnk", ".wh..wh.plnk/1"} - {
        ".wh..wh.aufs"
    }


def test_a_file_over_a_folder_and_a_folder_over_a_link_replace_it() -> None:
    found = image(layer(file("a/b/c"), link("l", "a"), folder("z")), layer(file("a"), folder("l")))
    assert {name: kind_of(entry) for name, entry in found.items()} == {"a": "-", "l": "d", "z": "d"}


def test_a_path_through_a_link_leads_where_the_link_leads_and_never_out_of_the_image() -> None:
    found = image(
        layer(folder("usr/lib"), link("lib", "usr/lib"), link("abs", "/usr"), link("up", "../../../usr")),
        layer(file("lib/one"), file("abs/lib/two"), file("up/three")),
    )
    assert {"usr/lib/one", "usr/lib/two", "usr/three"} <= set(found)
    assert kind_of(found["lib"]) == "l"
    assert found["up"].data == b"../../../usr"


def test_hard_links_are_one_file_whose_content_is_there_once_even_across_layers() -> None:
    found = image(layer(file("a", b"content")), layer(hard("b", "a"), hard("c", "/b")))
    assert {found[name].number for name in "abc"} == {found["a"].number}
    assert {found[name].links for name in "abc"} == {3}
    assert [found[name].data for name in "abc"] == [b"content", b"", b""]


def test_a_hard_link_to_a_symbolic_link_is_one_of_its_own_since_the_kernel_would_lose_it() -> None:
    found = image(layer(file("a"), link("l", "a"), hard("m", "l")))
    assert [(found[name].data, found[name].links) for name in "lm"] == [(b"a", 1), (b"a", 1)]
    assert found["l"].number != found["m"].number


def test_replacing_one_of_two_hard_links_leaves_the_other() -> None:
    found = image(layer(file("a", b"content"), hard("b", "a")), layer(file("a", b"new")))
    assert (found["a"].data, found["b"].data, found["b"].links) == (b"new", b"content", 1)


def test_attributes_are_kept_beside_the_file() -> None:
    tree, _ = flattened([layer(Entry(name="ping", headers=(("SCHILY.xattr.security.capability", "\x01\x00"),)))])
    node = tree.get(b"ping")
    assert node is not None
    assert dict(node.xattrs) == {"security.capability": b"\x01\x00"}


HOSTILE = {
    "a path that leads out": [file("../etc/passwd")],
    "a path that leads out in the middle": [file("a/../../b")],
    "an absolute path": [file("/etc/passwd")],
    "a hard link that leads out": [hard("a", "../../etc/shadow")],
    "a hard link to nothing": [hard("a", "b")],
    "a hard link to a folder": [folder("d"), hard("a", "d")],
    "a link to nothing": [link("a", "")],
    "a long name": [file("x" * 256)],
    "a long path": [file("/".join(["d" * 200] * 30))],
    "a whiteout of nothing": [file("d/.wh.")],
    "a whiteout of here": [file("d/.wh..")],
    "a whiteout of above": [file("d/.wh...")],
    "a file in a file": [file("a"), file("a/b")],
    "links in a circle": [link("a", "b"), link("b", "a"), file("a/c")],
    "a link to itself": [link("a", "a"), file("a/c")],
    "an unknown type": [Entry(name="a", kind=b"Z")],
    "a root that is a file": [file("./")],
    "a negative owner": [Entry(name="a", headers=(("uid", "-1"),))],
    "an owner beyond 32 bits": [Entry(name="a", headers=(("gid", str(2**33)),))],
    "a size beyond the archive": [Entry(name="a", headers=(("size", str(2**40)),))],
    "a sparse file": [Entry(name="a", headers=(("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "a")))],
}


@pytest.mark.parametrize("entries", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_layer_is_one_clear_error(entries: list[Entry]) -> None:
    with pytest.raises(BadImage) as raised:
        image(layer(*entries))
    assert raised.value.args[0].isprintable()


@pytest.mark.parametrize("data", [b"no tar" * 200, layer(file("a", bytes(5000)))[:3000], layer(file("a"))[:700]])
def test_what_is_no_archive_or_was_cut_off_is_one_clear_error(data: bytes) -> None:
    with pytest.raises(BadImage):
        image(data)


@given(st.integers(0, 2047), st.integers(0, 255))
def test_no_damage_to_a_header_raises_anything_else(at: int, value: int) -> None:
    data = bytearray(layer(file("a/b", b"content"), link("l", "a"), hard("h", "a/b")))
    data[at] = value
    with suppress(BadImage):
        image(bytes(data))


@given(st.lists(st.sampled_from(["a", "a/b", "a/b/c", "b", "b/a", ".wh.a", "a/.wh.b", "a/.wh..wh..opq"]), max_size=12))
def test_the_order_of_folders_in_the_archive_is_that_of_their_paths(names: list[str]) -> None:
    entries = [folder(name) if ".wh." not in name else file(name) for name in names]
    found = list(image(layer(*entries)))
    assert found == sorted(found, key=lambda name: name.split("/"))
    assert all(name.rpartition("/")[0] in {"", *found[:index]} for index, name in enumerate(found))


def test_the_same_tree_gives_the_same_bytes_whatever_the_order_and_times_of_its_layers() -> None:
    entries = [folder("d"), file("d/a", b"1"), file("d/b", b"2"), link("l", "d")]

    def archive(data: bytes) -> bytes:
        tree, spool = flattened([data])
        return b"".join(write_cpio(tree, spool.read))

    assert archive(layer(*entries)) == archive(layer(*entries[::-1]))


def test_a_body_that_is_shorter_than_its_size_is_no_archive() -> None:
    tree = Tree()
    tree.put(b"a", Node(mode=0o100644, body=Body(size=5, data=b"four")))
    with pytest.raises(BadImage, match="not as long"):
        list(write_cpio(tree, Spool(io.BytesIO()).read))
    tree.put(b"a", Node(mode=0o100644, body=Body(size=2**32)))
    with pytest.raises(BadImage, match="at most"):
        list(write_cpio(tree, Spool(io.BytesIO()).read))


def test_names_are_cleaned_and_shown_without_what_drives_a_terminal() -> None:
    assert clean_path(b"./a//b/.") == b"a/b"
    assert shown(b"\x1b[31m\xff\n") == "\\x1b[31m\\xff\\x0a"
    with pytest.raises(BadImage, match="NUL"):
        clean_path(b"a\0b")


def test_an_empty_layer_is_an_empty_tree() -> None:
    tree, spool = Tree(), Spool(io.BytesIO(layer()))
    apply_layer(tree, spool, offset=0, size=10240)
    assert len(tree) == 0
    assert list(tree.walk()) == []
