"""Options and profiles of the whole test run."""

import signal

import hypothesis
import pytest

# Under nohup, or in a shell's background, signals are ignored, and what is ignored is inherited: by the programs under test too.
for _number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(_number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# A property is judged by what it finds and not by how busy the machine is.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-seconds", type=float, default=2.0, help="how long each decoder is fuzzed (default 2)")
