"""`enclave measure`, as a person and a script use it."""

import json
from pathlib import Path

import pytest

from runtime.cli import main
from runtime.protocol.measurements import instance_register, role_register
from runtime.verifier.reference import parse_reference
from tests.image.eifs import EifVector, eifs, genuine


@pytest.mark.parametrize("vector", [each for each in eifs() if each.accepted], ids=lambda vector: vector.file)
def test_it_prints_what_nitro_cli_prints(vector: EifVector, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", str(vector.path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["Measurements"] == {"HashAlgorithm": "Sha384 { ... }", **vector.pcrs}
    assert answer["CheckCRC"] is True
    assert answer["IsSigned"] == vector.file.startswith("signed")


def test_what_it_prints_is_taken_as_reference_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", str(eifs()[0].path), "--json"]) == 0
    reference = parse_reference(capsys.readouterr().out, source="measured.json")
    (measurement,) = reference.measurements
    assert {f"PCR{number}": value.hex() for number, value in measurement.pcrs.items()} == eifs()[0].pcrs


@pytest.mark.parametrize("vector", [each for each in eifs() if not each.accepted], ids=lambda vector: vector.file)
def test_no_image_is_one_error_and_no_traceback(vector: EifVector, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", str(vector.path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"enclave measure: {vector.path}: ")
    assert said.count("\n") == 1


def test_a_launch_is_predicted_before_it_happens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "enclave.toml"
    config.write_text('version = 1\n[enclave]\nid = "a"\n')
    role, instance = "arn:aws:iam::123456789012:role/web", "i-0123456789abcdef0"
    words = ["measure", str(eifs()[0].path), "--json", "--predict", "--role", role, "--instance", instance, "--config", str(config)]
    assert main(words) == 0
    plain = json.loads(capsys.readouterr().out)["Measurements"]
    assert plain["PCR3"] == role_register(role).hex()
    assert plain["PCR4"] == instance_register(instance).hex()
    assert main([*words, "--host-parameter", "region=eu-west-1"]) == 0
    handed_in = json.loads(capsys.readouterr().out)["Measurements"]
    assert {name for name in plain if plain[name] != handed_in[name]} == {"PCR16"}
    assert set(plain) == {"HashAlgorithm", *(f"PCR{number}" for number in (0, 1, 2, 3, 4, 16, 18))}


@pytest.mark.parametrize(
    "words",
    [
        ["absent.eif"],
        ["."],
        [str(eifs()[0].path), "--role", "arn"],
        [str(eifs()[0].path), "--predict", "--host-parameter", "a=b"],
        [str(eifs()[0].path), "--predict", "--config", "absent.toml"],
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_empty_file_is_no_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.eif").touch()
    assert main(["measure", str(tmp_path / "empty.eif")]) == 1
    assert "empty" in capsys.readouterr().err


def test_people_get_a_line_of_meaning_for_each_register(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "signed.eif").write_bytes(genuine("signed-p384.eif"))
    assert main(["measure", str(tmp_path / "signed.eif")]) == 0
    out = capsys.readouterr().out
    assert "the release of the runtime" in out
    assert "signature valid; the certificate ends 2124-12-08" in out
