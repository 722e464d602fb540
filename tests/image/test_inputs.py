"""What is asked of an image before it is baked: no private keys, a user that exists; and of a signer, before it signs."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from runtime.cli import main
from runtime.enclave.platform import read_image_config
from runtime.image.contents import BadImage
from runtime.image.declared import Account, account_of
from runtime.image.measure import measure
from runtime.image.signing import new_certificate
from tests.image.building import CONFIG, Bench, bench
from tests.image.containers import ROOT, Oci, packed
from tests.image.eifs import EifVector, eifs
from tests.image.trees import file, flattened, layer, link

__all__ = ["bench"]

KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
KEYS = {
    "opt/app/server.key": PEM,
    "etc/old.pem": KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
    "root/.ssh/id_ed25519": ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
    "locked.pem": KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
    "rsa.txt": b"first\n" + rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    "windows.pem": PEM.replace(b"\n", b"\r\n"),
    "account.json": json.dumps({"private_key": PEM.decode()}).encode(),
    "nested.json": json.dumps(json.dumps({"private_key": PEM.decode()})).encode(),
    "windows.json": json.dumps({"private_key": PEM.decode().replace("\n", "\r\n")}).encode(),
    "values.yaml": b"tls:\n  key: |\n" + b"".join(b"    " + line for line in PEM.splitlines(keepends=True)),
    "a.der": KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    "store.p12": b"whatever it is",
    "key.ppk": b"PuTTY-User-Key-File-3: ssh-ed25519\n",
    "gpg.asc": b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOYBF\n=abcd\n-----END PGP PRIVATE KEY BLOCK-----\n",
}
NO_KEYS = {
    "lib/libcrypto.so": b"\0-----BEGIN PRIVATE KEY-----\0-----END PRIVATE KEY-----",
    "doc.md": b"starts with\n-----BEGIN PRIVATE KEY-----\nand ends with -----END PRIVATE KEY-----",
    "cert.pem": b"-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n",
    "data.key": b"not a key",
}


@pytest.mark.parametrize("name", KEYS)
def test_a_private_key_is_refused_by_name_and_baked_only_when_it_is_named(bench: Bench, name: str) -> None:
    image = bench.place("root.tar", layer(*ROOT, file(name, KEYS[name])))
    assert name in bench.refused(image)
    assert "etc/passwd" in bench.refused(image, "--allow-key", "/etc/passwd")
    assert any(name in note for note in bench.build(image, "--allow-key", f"/{name}")["Notes"])


def test_what_only_looks_like_a_key_is_none(bench: Bench) -> None:
    bench.build(bench.place("root.tar", layer(*ROOT, *(file(name, data) for name, data in NO_KEYS.items()))))


PASSWD = (
    b"root:x:0:0:::\napp:x:1000:1001::/:/bin/sh\nbroken\nodd:x:many:1::/:\nours:x:65510:65510::/:\n1000:x:7:7::/:\ntoor:x:0:5::/:\n"
)
GROUP = b"app:x:1001:\nextra:x:50:other,app\nwheel:x:10:app\nodd:x:x:\n"


@pytest.mark.parametrize(
    ("user", "account"),
    [
        ("app", Account(uid=1000, gid=1001, groups=(10, 50))),
        ("1000", Account(uid=1000, gid=1001, groups=(10, 50))),
        ("app:wheel", Account(uid=1000, gid=10)),
        ("app:77", Account(uid=1000, gid=77)),
        ("4711", Account(uid=4711, gid=0)),
        ("4711:4712", Account(uid=4711, gid=4712)),
        ("65532:65532", Account(uid=65532, gid=65532)),
        ("", None),
    ],
)
def test_a_user_is_looked_up_in_the_images_own_files(user: str, account: Account | None) -> None:
    tree, spool = flattened(
        [
            layer(
                file("usr/etc/passwd", PASSWD),
                file("etc/group", GROUP),
                link("etc/passwd", "../usr/etc/passwd"),
            )
        ]
    )
    assert account_of(user, tree, spool.read) == account


@pytest.mark.parametrize(
    "user", ["nobody", "odd", "app:odd", "app:none", "4294967295", "1:4294967296", "-1", "01", ":5", "root", "0", "toor", "0:5"]
)
def test_a_user_who_is_none_is_refused(user: str) -> None:
    tree, spool = flattened([layer(file("etc/passwd", PASSWD), file("etc/group", GROUP))])
    with pytest.raises(BadImage):
        account_of(user, tree, spool.read)


def test_a_user_counts_only_where_a_process_names_none_and_is_never_one_of_ours(bench: Bench) -> None:
    (bench.folder / "enclave.toml").write_text(CONFIG)
    image = bench.place("app.tar", Oci(layers=[packed(*ROOT)], declared={"User": "nobody"}).tar())
    bench.build(image)
    (bench.folder / "enclave.toml").write_text(CONFIG.replace('user = "1000:1000"', "#"))
    assert "nobody" in bench.refused(image)
    root = bench.place("root.tar", Oci(layers=[packed(*ROOT)], declared={"User": "0"}).tar())
    assert "name `user` in enclave.toml" in bench.refused(root)
    (bench.folder / "enclave.toml").write_text(CONFIG)
    bench.build(root)
    (bench.folder / "enclave.toml").write_text(CONFIG.replace('user = "1000:1000"', "#"))
    ours = Oci(layers=[packed(file("etc/passwd", PASSWD))], declared={"User": "ours"})
    assert "65510" in bench.refused(bench.place("ours.tar", ours.tar()))


def test_a_process_without_a_command_needs_an_image_that_has_one(bench: Bench) -> None:
    config = bench.folder / "enclave.toml"
    config.write_text(CONFIG.replace('command = ["python3", "example/server.py"]', "#"))
    assert "Entrypoint" in bench.refused(bench.place("root.tar", layer(*ROOT)))
    bench.build(bench.place("app.tar", Oci(layers=[packed(*ROOT)], declared={"Cmd": ["/bin/app"]}).tar()))


@pytest.mark.parametrize("vector", [each for each in eifs() if not each.accepted], ids=lambda vector: vector.file)
def test_a_file_to_verify_that_is_no_image_is_one_clear_error(bench: Bench, vector: EifVector) -> None:
    words = bench.words(bench.place("root.tar", layer(*ROOT)))
    del words[words.index("-o") : words.index("-o") + 2]
    assert main([*words, "--verify", str(vector.path)]) == 1
    assert bench.captured.readouterr().err.splitlines()[-1].startswith("enclave build: ")


# A Dockerfile


def dockerfile(bench: Bench) -> Path:
    (bench.folder / "context").mkdir()
    bench.place("context/app", b"the application")
    lines = "FROM scratch", "COPY app /bin/app", 'ENTRYPOINT ["/bin/app", "x y"]', "ENV A=1"
    return bench.place("context/Dockerfile", "\n".join(lines).encode())


def test_a_dockerfile_is_built_by_buildah_to_the_same_registers_each_time(bench: Bench) -> None:
    path = dockerfile(bench)
    first, second = bench.build(path), bench.build(path.parent)
    assert first["Measurements"] == second["Measurements"]
    assert read_image_config(bench.ramdisk(1)["enclave/image.json"].data, root=None).command == ("/bin/app", "x y")


def test_a_dockerfile_that_cannot_be_built_and_a_machine_without_buildah_are_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dockerfile(bench)
    path.write_text("FROM scratch\nCOPY absent /\n")
    said = bench.run(path)
    assert "buildah bud ended with" in said
    monkeypatch.setenv("PATH", str(bench.folder))
    assert "docker save" in bench.run(path)


# Signing


def certificate(folder: Path, *, days: int = 365, age: int = 0) -> tuple[str, str]:
    pem, key, _ = new_certificate("signer", days, datetime.now(UTC) - timedelta(days=age))
    (folder / "c.pem").write_bytes(pem)
    (folder / "c.key").write_bytes(key)
    return str(folder / "c.pem"), str(folder / "c.key")


def test_cert_new_makes_what_signs_and_pcr8_is_of_it(bench: Bench) -> None:
    out = str(bench.folder / "signer")
    assert main(["cert", "new", out, "--name", "me"]) == 0
    register = bench.captured.readouterr().out.split()[-1]
    assert (bench.folder / "signer.key").stat().st_mode & 0o777 == 0o600
    assert main(["cert", "new", out]) == 1
    answer = bench.build(bench.place("root.tar", layer(*ROOT)), "--sign", f"{out}.pem", f"{out}.key")
    assert answer["Measurements"]["PCR8"] == register
    assert answer["Notes"] == []
    assert measure(bench.eif()).is_signature_valid
    assert main(["cert", "new", out, "--days", "0"]) == 2


def test_a_command_signs_in_der_or_base64(bench: Bench) -> None:
    pem, key = certificate(bench.folder)
    image = bench.place("root.tar", layer(*ROOT))
    for number, command in enumerate((f"openssl dgst -sha384 -sign {key}", f"sh -c 'openssl dgst -sha384 -sign {key} | base64'")):
        bench.build(image, "--sign-command", pem, command, out=f"{number}.eif")
        assert measure(bench.eif(f"{number}.eif")).is_signature_valid


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("false", "ended with 1"),
        ("cat", "neither"),
        ("absent-command", "No such file"),
        ("", "empty"),
        ("echo MAA=", ""),
    ],
)
def test_a_command_that_does_not_sign_is_an_error(bench: Bench, command: str, words: str) -> None:
    pem, _ = certificate(bench.folder)
    assert words in bench.refused(bench.place("root.tar", layer(*ROOT)), "--sign-command", pem, command)


@pytest.mark.parametrize(("days", "age", "words"), [(10, 11, "ended on"), (400, -2, "not valid before")])
def test_a_certificate_that_is_not_valid_now_does_not_sign(bench: Bench, days: int, age: int, words: str) -> None:
    assert words in bench.refused(bench.place("root.tar", layer(*ROOT)), "--sign", *certificate(bench.folder, days=days, age=age))


def test_a_certificate_that_ends_soon_is_a_warning(bench: Bench) -> None:
    answer = bench.build(bench.place("root.tar", layer(*ROOT)), "--sign", *certificate(bench.folder, days=29))
    assert any("ends in 2" in note for note in answer["Notes"])


def test_another_key_does_not_sign(bench: Bench) -> None:
    pem, _ = certificate(bench.folder)
    image = bench.place("root.tar", layer(*ROOT))
    assert load_pem_private_key(PEM, None) is not None
    for name, data in (("other.key", PEM), ("no.key", b"no key")):
        assert "key" in bench.refused(image, "--sign", pem, str(bench.place(name, data)))
    other = bench.place("other.key", PEM)
    assert "certificate's key" in bench.refused(image, "--sign-command", pem, f"openssl dgst -sha384 -sign {other}")


def test_a_signed_file_is_verified_apart_from_its_signature(bench: Bench) -> None:
    image = bench.place("root.tar", layer(*ROOT))
    bench.build(image, "--sign", *certificate(bench.folder))
    verify = [*bench.words(image), "--verify", str(bench.folder / "out.eif")]
    del verify[verify.index("-o") : verify.index("-o") + 2]
    assert main(verify) == 0


def test_a_file_says_all_of_it(bench: Bench) -> None:
    bench.place("app.tar", layer(*ROOT))
    certificate(bench.folder)
    text = 'version = 1\nimage = "app.tar"\noutput = "made.eif"\nkernel = "kernel"\nruntime = "runtime"\n'
    path = bench.place("image.toml", (text + '[sign]\ncertificate = "c.pem"\nkey = "c.key"\n').encode())
    assert main(["build", str(path)]) == 0
    assert measure(bench.eif("made.eif")).is_signature_valid
    assert main(["build", str(path), "--verify", str(bench.folder / "made.eif")]) == 0
    assert main(["build", str(path), "-o", "x.eif"]) == 2
    bench.place("image.toml", (text + '[sign]\ncertificate = "c.pem"\n').encode())
    assert main(["build", str(path)]) == 2
