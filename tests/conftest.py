"""Options and profiles of the whole test run."""

import hypothesis
import pytest

# A property is judged by what it finds and not by how busy the machine is.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-seconds", type=float, default=2.0, help="how long each decoder is fuzzed (default 2)")
