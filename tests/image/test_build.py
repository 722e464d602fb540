"""`enclave build`: what goes in comes out of the image, the same each time, measured and signed."""

import gzip
import json
import lzma
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from runtime.cli import main
from runtime.enclave.init import ramdisk
from runtime.enclave.platform import read_image_config
from runtime.image.eif import SectionKind
from runtime.image.ramdisks import NOT_COUNTED, SENTINEL
from runtime.verifier.reference import parse_reference
from tests.commands.provisioner_folder import Folder
from tests.image.building import CONFIG, Bench, bench
from tests.image.containers import KERNEL_VERSION, ROOT, Oci, described, docker_save, packed
from tests.image.trees import Entry, Unpacked, file, layer, link

__all__ = ["bench"]

DECLARED = {
    "Entrypoint": ["/bin/app", "a b", "$HOME"],
    "Cmd": ["--flag=;"],
    "Env": ["A=1=2", "B="],
    "User": "app",
    "WorkingDir": "/srv/data",
}
APP = Oci(layers=[packed(*ROOT), packed(file("etc/new", b"upper"), file("bin/.wh.gone"))], declared=DECLARED)


def unpack(archive: dict[str, Unpacked], into: Path) -> Path:
    """As the kernel does, for a user who may make no devices."""
    for name, entry in archive.items():
        path = into / name
        if stat.S_ISDIR(entry.mode):
            path.mkdir(parents=True, exist_ok=True)
        elif stat.S_ISREG(entry.mode):
            path.write_bytes(entry.data)
        elif stat.S_ISLNK(entry.mode):
            path.symlink_to(entry.data.decode())
    return into


def test_an_oci_layout_becomes_an_image_with_what_it_declares(bench: Bench) -> None:
    config = bench.folder / "enclave.toml"
    config.write_text(config.read_text().replace('user = "1000:1000"', "#"))
    bench.build(APP.write(bench.folder / "layout"))
    ours, theirs = bench.ramdisk(0), bench.ramdisk(1)
    assert theirs["enclave/enclave.toml"].data == config.read_bytes()
    image = read_image_config(theirs["enclave/image.json"].data, root="/rootfs")
    assert image.command == ("/bin/app", "a b", "$HOME", "--flag=;")
    assert (image.environment["A"], image.environment["B"]) == ("1=2", "")
    assert (image.directory, image.user, image.groups) == ("/srv/data", (1000, 1001), ())
    assert theirs["rootfs/bin/app"].data == b"the application"
    assert theirs["rootfs/etc/new"].data == b"upper"
    assert stat.S_ISDIR(theirs["rootfs/srv/data"].mode)
    assert {name: entry.mode for name, entry in ours.items() if name in ("init", "tmp", "dev/console", "dev/urandom")} == {
        "init": 0o100755,
        "tmp": 0o041777,
        "dev/console": 0o020600,
        "dev/urandom": 0o020444,
    }
    assert ours["modules/modules.order"].data == b"nsm.ko\n"
    assert bytes(bench.eif().one_of(SectionKind.COMMAND_LINE) or b"") == b"console=ttyS0 reboot=k rootfstype=ramfs"
    metadata = json.loads(bytes(bench.eif().one_of(SectionKind.METADATA) or b""))
    assert set(metadata) == {"ImageName", "ImageVersion", "BuildMetadata", "DockerInfo", "CustomMetadata"}
    assert metadata["BuildMetadata"]["KernelVersion"] == KERNEL_VERSION


def test_the_sentinels_come_last_and_the_first_process_counts_as_the_builder_does(bench: Bench) -> None:
    bench.build(APP.write(bench.folder / "layout"))
    assert [list(bench.ramdisk(number))[-1] for number in (0, 1)] == [".enclave-complete", "rootfs/.enclave-complete"]
    root = bench.folder / "unpacked"
    root.mkdir()
    unpack(bench.ramdisk(1), unpack(bench.ramdisk(0), root))
    (root / "modules/nsm.ko").with_name("more").touch()  # more than were counted may be there
    assert ramdisk.check_ramdisks((root, root / "rootfs"))
    (root / "rootfs/etc/new").unlink()
    with pytest.raises(Exception, match="entries"):
        ramdisk.check_ramdisks((root, root / "rootfs"))
    assert ramdisk.SENTINEL.encode() == SENTINEL
    assert {name.encode() for name in ramdisk.NOT_COUNTED} == NOT_COUNTED


def test_every_form_of_one_image_gives_the_same_registers(bench: Bench) -> None:
    plain = layer(*ROOT)
    both = layer(*(file(name, data) for name, data in {**APP.all_files(), "manifest.json": b"[]"}.items()))
    forms = {
        "layout": bench.build(APP.write(bench.folder / "layout")),
        "layout.tar": bench.build(bench.place("layout.tar", APP.tar())),
        "layout.tar.gz": bench.build(bench.place("layout.tar.gz", gzip.compress(APP.tar()))),
        "saved.tar": bench.build(bench.place("saved.tar", docker_save(APP))),
        "both.tar": bench.build(bench.place("both.tar", both)),
    }
    assert len({json.dumps(each["Measurements"]) for each in forms.values()}) == 1
    stored = {
        "plain": plain,
        "members": gzip.compress(plain[:700]) + gzip.compress(plain[700:]),
        "zstd": zstandard.compress(plain[:700]) + zstandard.compress(plain[700:]),
        "xz": lzma.compress(plain),
    }
    layers = [bench.build(bench.place(f"{name}.tar", Oci(layers=[(data, plain)]).tar())) for name, data in stored.items()]
    roots = [bench.build(bench.place(f"root.{name}", data)) for name, data in stored.items()]
    assert len({json.dumps(each["Measurements"]) for each in (*layers, *roots)}) == 1


def test_a_saved_archive_may_hold_links_to_its_layers(bench: Bench) -> None:
    entries = [file("blob", layer(*ROOT)), link("0/layer.tar", "../blob")]
    config = Oci(layers=[packed(*ROOT)]).image_file()
    manifest = json.dumps([{"Config": "config.json", "Layers": ["0/layer.tar"]}]).encode()
    bench.build(bench.place("app.tar", layer(*entries, file("config.json", config), file("manifest.json", manifest))))
    assert bench.ramdisk(1)["rootfs/bin/app"].data == b"the application"


def test_the_image_of_the_kernels_platform_is_taken_and_what_is_said_about_it_is_left_aside(bench: Bench) -> None:
    other = Oci(layers=[packed(file("wrong"))], config={"architecture": "arm64"}).all_files()
    right = APP.all_files()
    entries = [json.loads(files["index.json"])["manifests"][0] for files in (other, right)]
    said = described(b"{}", "application/vnd.oci.image.manifest.v1+json", annotations={"vnd.docker.reference.type": "attestation"})
    nested = json.dumps({"schemaVersion": 2, "manifests": [*entries, said]}).encode()
    top = {"schemaVersion": 2, "manifests": [described(nested, "application/vnd.oci.image.index.v1+json")]}
    files = {
        **other,
        **right,
        "index.json": json.dumps(top).encode(),
        f"blobs/{described(nested, '')['digest'].replace(':', '/')}": nested,
    }
    bench.build(bench.place("app.tar", layer(*(file(name, data) for name, data in files.items()))))
    assert "rootfs/bin/app" in bench.ramdisk(1)


def test_a_root_folder_is_read_without_following_anything(bench: Bench) -> None:
    root = bench.folder / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/app").write_bytes(b"x")
    (root / "bin/same").hardlink_to(root / "bin/app")
    (root / "out").symlink_to(bench.folder / "enclave.toml")
    bench.build(root)
    found = bench.ramdisk(1)
    assert stat.S_ISLNK(found["rootfs/out"].mode)
    assert found["rootfs/bin/app"].number == found["rootfs/bin/same"].number


def test_the_same_bytes_come_of_another_folder_day_umask_and_time_zone(bench: Bench, tmp_path: Path) -> None:
    layout = APP.write(bench.folder / "layout")
    bench.build(layout)
    first = {path.suffix: path.read_bytes() for path in bench.folder.glob("out.*")}
    elsewhere = Bench(folder=tmp_path / "else" / "where", captured=bench.captured)
    shutil.copytree(bench.folder, elsewhere.folder, ignore=shutil.ignore_patterns("out.*", "else"))
    for path in elsewhere.folder.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    (elsewhere.folder / "runtime/usr").chmod(0o700)
    (elsewhere.folder / "runtime/usr/bin/python3.11").chmod(0o700)
    umask, zone = os.umask(0o077), os.environ.get("TZ")
    try:
        os.environ["TZ"] = "Asia/Tokyo"
        time.tzset()
        elsewhere.build(elsewhere.folder / "layout")
    finally:
        os.umask(umask)
        os.environ.pop("TZ")
        os.environ.update({} if zone is None else {"TZ": zone})
        time.tzset()
    assert {path.suffix: path.read_bytes() for path in elsewhere.folder.glob("out.*")} == first


def test_two_customers_of_one_release_have_one_pcr1(bench: Bench) -> None:
    one = bench.build(bench.place("one.tar", layer(*ROOT)))["Measurements"]
    config = bench.folder / "enclave.toml"
    config.write_text(config.read_text().replace('id = "example"', 'id = "other"').replace('mode = "http"', 'mode = "tcp"'))
    other = bench.build(bench.place("other.tar", layer(*ROOT, file("more"))))["Measurements"]
    assert one["PCR1"] == other["PCR1"]
    assert one["PCR0"] != other["PCR0"]
    assert one["PCR2"] != other["PCR2"]


def test_reference_and_list_are_of_the_image(bench: Bench) -> None:
    status = b"Package: libc6\nVersion: 2.41-1+b1\n\nPackage: bash\nVersion: 5.2\n"
    answer = bench.build(bench.place("root.tar", layer(*ROOT, file("var/lib/dpkg/status", status))))
    (measurement,) = parse_reference((bench.folder / "out.reference.toml").read_text()).measurements
    assert {f"PCR{number}": value.hex() for number, value in measurement.pcrs.items()}.items() <= answer["Measurements"].items()
    assert measurement.epoch == 1
    contents = json.loads((bench.folder / "out.sbom.json").read_text())
    assert {each["purl"] for each in contents["components"] if "purl" in each} == {"pkg:deb/libc6@2.41-1%2Bb1", "pkg:deb/bash@5.2"}
    names = {each["name"] for part in contents["components"] for each in part.get("components", ())}
    assert {"/rootfs/bin/app", "/init", "/enclave/enclave.toml", "/modules/nsm.ko"} <= names


def test_the_reference_values_go_straight_into_the_registry(bench: Bench, tmp_path: Path) -> None:
    bench.build(bench.place("root.tar", layer(*ROOT)))
    (tmp_path / "provisioner").mkdir()
    folder = Folder(tmp_path / "provisioner", bench.captured)
    assert folder.registry("add", "example", "--reference", str(bench.folder / "out.reference.toml")).status == 0
    assert "example 1" in folder.registry("list").out


def test_what_is_mounted_over_is_not_baked(bench: Bench) -> None:
    noise = [Entry(name="dev/sda", kind=b"4", device=(8, 0)), file("proc/1/x"), file("sys/y"), file("run/kept")]
    bench.build(bench.place("root.tar", layer(*ROOT, *noise)))
    found = bench.ramdisk(1)
    assert not {"rootfs/dev/sda", "rootfs/proc/1", "rootfs/sys/y"} & set(found)
    assert "rootfs/run/kept" in found


def test_what_has_no_effect_in_an_enclave_is_said(bench: Bench) -> None:
    entries = [
        Entry(name="bin/ping", data=b"x", headers=(("SCHILY.xattr.security.capability", "\x01"),)),
        file("bin/su", mode=0o4755),
        Entry(name="srv/node", kind=b"3", device=(1, 3)),
    ]
    oci = Oci(layers=[packed(*ROOT, *entries)], declared={"StopSignal": "SIGQUIT", "Healthcheck": {"Test": ["NONE"]}})
    notes = "\n".join(bench.build(bench.place("app.tar", oci.tar()))["Notes"])
    assert all(word in notes for word in ("/bin/ping", "/bin/su", "/srv/node", "SIGQUIT", "Healthcheck"))


def test_an_image_for_awss_init_has_our_whole_tree_one_folder_deeper(bench: Bench) -> None:
    bench.build(APP.write(bench.folder / "layout"), "--init", "aws")
    boot, ours, theirs = (bench.ramdisk(number) for number in range(3))
    assert boot["init"].data == b"\x7fELF AWS's init"
    assert boot["nsm.ko"].data == b"\x7fELF nsm"
    assert (ours["cmd"].data, "rootfs/init" in ours) == (b"/init\n", True)
    assert {"rootfs/enclave/enclave.toml", "rootfs/rootfs/bin/app", "rootfs/rootfs/.enclave-complete"} <= set(theirs)


def test_compressed_ramdisks_hold_the_same_and_name_the_compressor(bench: Bench) -> None:
    layout = APP.write(bench.folder / "layout")
    bench.build(layout)
    bench.build(layout, "--compress", out="small.eif")
    for number, archive in enumerate(bench.eif("small.eif").all_of(SectionKind.RAMDISK)):
        assert len(archive) % 4 == 0
        assert gzip.decompress(bytes(archive)) == bytes(bench.eif().all_of(SectionKind.RAMDISK)[number])
    assert b"zlib" in bytes(bench.eif("small.eif").one_of(SectionKind.METADATA) or b"")


DIFFERENCES: dict[str, Callable[[Path], object]] = {
    "only one has /rootfs/etc/x": lambda folder: (folder / "app.tar").write_bytes(Oci(layers=[packed(*ROOT, file("etc/x"))]).tar()),
    "/modules/nsm.ko differs in its content": lambda folder: (folder / "kernel/nsm.ko").write_bytes(b"\x7fELF mns"),
    "python3.11 differs in its mode": lambda folder: (folder / "runtime/usr/bin/python3.11").chmod(0o644),
    "the command line differs": lambda folder: (folder / "kernel/cmdline").write_text("quiet\n"),
    "/enclave/enclave.toml differs in its size": lambda folder: (folder / "enclave.toml").write_text(CONFIG + "\n"),
}


@pytest.mark.parametrize("words", DIFFERENCES)
def test_verify_names_the_first_difference(bench: Bench, words: str) -> None:
    image = bench.place("app.tar", Oci(layers=[packed(*ROOT)]).tar())
    bench.build(image)
    verify = [*bench.words(image), "--verify", str(bench.folder / "out.eif")]
    del verify[verify.index("-o") : verify.index("-o") + 2]
    assert main(verify) == 0
    DIFFERENCES[words](bench.folder)
    bench.captured.readouterr()
    assert main(verify) == 1
    assert words in bench.captured.readouterr().err
