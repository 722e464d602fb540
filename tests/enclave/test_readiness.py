"""Who may hold the enclave back from being ready, and what the parent is told; the numbers that it may ask for."""

from runtime.enclave.metrics import Metrics
from runtime.enclave.readiness import Readiness
from runtime.protocol.link_values import METRICS_MAX


def test_requests_are_let_in_when_every_process_is_ready_and_nothing_speaks_against_it() -> None:
    told: list[tuple[bool, str]] = []
    readiness = Readiness(lambda is_ready, reason: told.append((is_ready, reason)))
    readiness.hold("clock", "clock_age")
    readiness.processes(False)
    assert told == [], "a process is not ready, and that has no reason of the machine's"
    readiness.processes(True)
    assert told == [(False, "clock_age")]
    readiness.hold("memory", "memory_shed")
    readiness.hold("clock", "")
    readiness.hold("clock", "")
    assert told == [(False, "clock_age"), (False, "memory_shed")]
    was_ready = readiness.is_ready
    readiness.hold("memory", "")
    assert (was_ready, readiness.is_ready) == (False, True)
    readiness.processes(False)
    readiness.processes(False)
    assert told[2:] == [(True, ""), (False, "")]


def test_renewals_that_fail_keep_no_request_out() -> None:
    told: list[tuple[bool, str]] = []
    readiness = Readiness(lambda is_ready, reason: told.append((is_ready, reason)))
    readiness.degrade("provisioner_unreachable")
    assert told == [], "nobody is ready yet"
    readiness.processes(True)
    readiness.hold("clock", "clock_age")
    readiness.hold("clock", "")
    readiness.degrade("")
    assert told == [(True, "provisioner_unreachable"), (False, "clock_age"), (True, "provisioner_unreachable"), (True, "")]


def test_metrics_are_read_when_they_are_asked_for_and_never_more_than_a_message_carries() -> None:
    metrics = Metrics()
    value = 1
    metrics.add(lambda: {"one": value})
    metrics.add(lambda: {f"other_{number}": number for number in range(2 * METRICS_MAX)})
    value = 2
    read = metrics.read()
    assert len(read) == METRICS_MAX
    assert read["one"] == 2
    metrics.is_enabled = False
    assert metrics.read() == {}
