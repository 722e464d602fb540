"""The arithmetic of a bench, and what it reads of the load generators."""

import math

import pytest

from tests.bench.figures import (
    BenchError,
    Handshake,
    Results,
    Spread,
    percentile,
    ratios,
    read_h2load,
    read_handshake,
    read_wrk,
    spread,
)

SUMMARY = (
    'summary {"requests":%d,"bytes":%d,"microseconds":1005431,"p50":1283,"p99":4452,"connect_errors":0,'
    '"read_errors":0,"write_errors":0,"status_errors":%d,"timeouts":0}'
)


def wrk_output(requests: int, size: int = 255827, bad: int = 0) -> str:
    return f"Running 1s test\n  1 threads and 10 connections\n\n{SUMMARY % (requests, size, bad)}\n"


def test_a_spread_passes_over_what_was_not_measured() -> None:
    assert spread([3.0, math.nan, 1.0, 8.0]) == Spread(3.0, 1.0, 8.0)
    assert spread([math.nan]) is None


def test_ratios_are_taken_within_each_round() -> None:
    found = ratios([2.0, 30.0, 4.0, math.nan, -1.0], [1.0, 10.0, 0.0, 1.0, 1.0])
    assert found[:2] == [2.0, 3.0]
    assert all(math.isnan(each) for each in found[2:])


@pytest.mark.parametrize(("percent", "expected"), [(0, 1), (50, 2), (51, 3), (99, 4), (100, 4)])
def test_a_percentile_is_one_of_the_values(percent: float, expected: float) -> None:
    assert percentile([4, 1, 3, 2], percent) == expected


def test_nothing_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_results_keep_a_value_for_each_round_and_say_what_is_missing() -> None:
    results = Results(2)
    results.put("request", "ours", 1, 6.0)
    results.put("request", "nginx", 1, 4.0)
    assert math.isnan(results.of("request", "ours")[0])
    assert results.ratios("request", "ours", "nginx")[1] == 1.5
    assert spread(results.ratios("request", "ours", "haproxy")) is None


def test_the_summary_of_wrk_is_found_in_what_it_printed() -> None:
    summary = read_wrk(wrk_output(1789))
    assert (summary.requests, summary.bytes, summary.p99) == (1789, 255827, 4452)


@pytest.mark.parametrize("output", ["unable to connect to localhost:1", wrk_output(0), wrk_output(10, bad=1), wrk_output(10, 0)])
def test_a_load_without_good_answers_is_no_measurement(output: str) -> None:
    with pytest.raises(BenchError):
        read_wrk(output)


def test_bytes_of_answers_that_are_not_whole_count_where_they_are_asked_for() -> None:
    assert read_wrk(wrk_output(0), least=0).bytes == 255827


def test_requests_of_the_first_moments_are_left_out_of_a_fixed_rate() -> None:
    log = "1000000\t200\t9000\n1400000\t200\t8000\n1600000\t200\t70\n1500000\t200\t60\n"
    assert read_h2load(log, skip_seconds=0.5) == [70.0, 60.0]


@pytest.mark.parametrize("log", ["", "1000000\t200\t9\n", "1000000\t200\t9\n2000000\t503\t9\n"])
def test_a_fixed_rate_with_a_failure_or_without_requests_is_no_measurement(log: str) -> None:
    with pytest.raises(BenchError):
        read_h2load(log, skip_seconds=0.5)


@pytest.mark.parametrize(
    "group", ["Server Temp Key: X25519, 253 bits", "Peer Temp Key: X25519, 253 bits", "Negotiated TLS1.3 group: X25519"]
)
def test_what_was_agreed_on_is_read_in_the_words_of_old_and_new_openssl(group: str) -> None:
    said = f"CONNECTION ESTABLISHED\nProtocol version: TLSv1.3\nCiphersuite: TLS_AES_128_GCM_SHA256\nSignature type: ECDSA\n{group}\nDONE\n"
    assert read_handshake(said) == Handshake(version="TLSv1.3", suite="TLS_AES_128_GCM_SHA256", group="X25519", signature="ECDSA")


def test_a_handshake_that_failed_is_said_to_have() -> None:
    with pytest.raises(BenchError, match="no TLS handshake"):
        read_handshake("connect: Connection refused\n")
