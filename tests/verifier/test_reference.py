"""Reference values: what is read, what is refused, and that nothing expected never matches."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.verifier.reference import Measurement, ReferenceInvalid, ReferenceValues, parse_reference, write_reference

ONE, TWO = "11" * 48, "22" * 48
TOML = f"""
version = 1
[[measurement]]
name = "payments-prod 1.4.0"
epoch = 7
config_digest = "{TWO}"
pcrs = {{ 0 = "{ONE}", 2 = "{TWO}" }}
[[measurement]]
name = "payments-prod 1.3.9"
[measurement.pcrs]
8 = "{ONE.upper()}"
"""


def complaint(text: str) -> str:
    with pytest.raises(ReferenceInvalid) as refused:
        parse_reference(text, source="reference.toml")
    assert all(line.startswith("reference.toml:") for line in str(refused.value).splitlines())
    return str(refused.value)


def test_a_list_of_measurements_is_read_from_toml() -> None:
    values = parse_reference(TOML)
    assert values.measurements == (
        Measurement(
            name="payments-prod 1.4.0",
            pcrs={0: b"\x11" * 48, 2: b"\x22" * 48},
            epoch=7,
            config_digest=b"\x22" * 48,
        ),
        Measurement(name="payments-prod 1.3.9", pcrs={8: b"\x11" * 48}),
    )


DESCRIBE_EIF = {
    "EifVersion": 4,
    "Measurements": {"HashAlgorithm": "Sha384 { ... }", "PCR0": ONE, "PCR1": TWO, "PCR2": ONE, "PCR8": TWO},
    "IsSigned": True,
    "CheckCRC": True,
}


@pytest.mark.parametrize("printed", [DESCRIBE_EIF, {"Measurements": DESCRIBE_EIF["Measurements"]}, DESCRIBE_EIF["Measurements"]])
def test_what_nitro_cli_prints_is_read(printed: object) -> None:
    (measurement,) = parse_reference("\n" + json.dumps(printed), source="app.json").measurements
    assert measurement.name == "app.json"
    assert measurement.pcrs == {0: b"\x11" * 48, 1: b"\x22" * 48, 2: b"\x11" * 48, 8: b"\x22" * 48}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "version: is missing"),
        ("version = 1", "measurement: is missing"),
        ("version = 1\nmeasurement = []", "must not be empty"),
        ("version = 2\nmeasurement = []", "version"),
        ('version = 1\n[[measurement]]\nname = "x"', "measurement[0].pcrs: is missing"),
        ('version = 1\n[[measurement]]\nname = "x"\npcrs = {}', "must not be empty"),
        (f'version = 1\n[[measurement]]\nname = ""\npcrs = {{0 = "{ONE}"}}', "printable name"),
        (f'version = 1\n[[measurement]]\nname = "a\\u001b"\npcrs = {{0 = "{ONE}"}}', "printable name"),
        (f'version = 1\n[[measurement]]\nname = "x"\npcrs = {{32 = "{ONE}"}}', "PCR32"),
        (f'version = 1\n[[measurement]]\nname = "x"\npcrs = {{PCR0 = "{ONE}"}}', "'PCR0'"),
        (f'version = 1\n[[measurement]]\nname = "x"\npcrs = {{00 = "{ONE}"}}', "'00'"),
        ('version = 1\n[[measurement]]\nname = "x"\npcrs = {0 = "11"}', "32, 48 or 64"),
        ('version = 1\n[[measurement]]\nname = "x"\npcrs = {0 = ""}', "hex digits"),
        ('version = 1\n[[measurement]]\nname = "x"\npcrs = {0 = "0x11"}', "hex digits"),
        ('version = 1\n[[measurement]]\nname = "x"\npcrs = {0 = "11 22"}', "hex digits"),
        ('version = 1\n[[measurement]]\nname = "x"\npcrs = {0 = 11}', "must be a string"),
        (f'version = 1\n[[measurement]]\nname = "x"\nepoch = -1\npcrs = {{0 = "{ONE}"}}', "epoch"),
        (f'version = 1\n[[measurement]]\nname = "x"\nconfig_digest = "11"\npcrs = {{0 = "{ONE}"}}', "config digest"),
        (f'version = 1\n[[measurement]]\nname = "x"\npcr = {{0 = "{ONE}"}}', 'did you mean "pcrs"'),
        (2 * TOML.removeprefix("\nversion = 1") + "", "version: is missing"),
        (TOML + TOML.removeprefix("\nversion = 1"), "two measurements"),
        ("version = [[[[", "TOML"),
        ("{}", "names no register"),
        ("{", "reference.toml"),
        ("{}x", "reference.toml"),
        ('{"Measurements": {}}', "names no register"),
        ('{"Measurements": {"HashAlgorithm": "Sha384"}}', "names no register"),
        ('{"Measurements": []}', "must be an object"),
        ('{"Measurements": null}', "must be an object"),
        ('{"PCR0": ""}', "hex digits"),
        ('{"PCR0": null}', "'PCR0'"),
        ('{"PCR0": "11"}', "32, 48 or 64"),
        (f'{{"PCR32": "{ONE}"}}', "PCR32"),
        (f'{{"PCR00": "{ONE}"}}', "'PCR00'"),
        (f'{{"PCR0": "{ONE}", "PCR0": "{TWO}"}}', "twice"),
        (f'{{"PCR0": "{ONE}", "pcr1": "{TWO}"}}', "'pcr1'"),
        ('{"Measurements":' * 100_000, "reference.toml"),
        ("{" + " " * 2_000_000, "1048576"),
    ],
)
def test_what_is_not_reference_values_is_refused_with_its_place(text: str, part: str) -> None:
    assert part in complaint(text)


def test_a_measurement_or_a_list_of_nothing_cannot_be_made_in_code_either() -> None:
    with pytest.raises(ValueError, match="names no register"):
        Measurement(name="empty", pcrs={})
    with pytest.raises(ValueError, match="without a measurement"):
        ReferenceValues(measurements=())


_NAMES = st.text(min_size=1, max_size=40).filter(str.isprintable)
_MEASUREMENTS = st.builds(
    Measurement,
    name=_NAMES,
    pcrs=st.dictionaries(
        st.integers(0, 31), st.sampled_from([32, 48, 64]).flatmap(lambda n: st.binary(min_size=n, max_size=n)), min_size=1
    ),
    epoch=st.integers(0, 2**32 - 1),
    config_digest=st.none() | st.binary(min_size=48, max_size=48),
)


@given(st.lists(_MEASUREMENTS, min_size=1, max_size=4, unique_by=lambda measurement: measurement.name))
def test_what_is_written_is_read_back(measurements: list[Measurement]) -> None:
    values = ReferenceValues(measurements=tuple(measurements))
    assert parse_reference(write_reference(values)) == values


@given(st.text(max_size=200))
def test_any_text_gives_reference_values_or_one_error(text: str) -> None:
    for candidate in (text, "{" + text, "version = 1\n" + text):
        with pytest.raises(ReferenceInvalid):
            parse_reference(candidate)


def test_reference_values_can_be_taken_apart_for_storage() -> None:
    assert asdict(parse_reference(TOML))["measurements"][1]["pcrs"] == {8: b"\x11" * 48}
