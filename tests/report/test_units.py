import pytest

from edgesparse.report.units import (
    count_text,
    ms_text,
    ratio_text,
    size_text,
    speed_interval_text,
    speed_text,
)


@pytest.mark.parametrize(
    ("size", "text"),
    [(999, "999 B"), (1234, "1.23 KB"), (988_424, "988.4 KB"), (3_290_952, "3.29 MB"),
     (999_600, "1.00 MB"), (12_800_000, "12.8 MB")],
)  # fmt: skip
def test_sizes(size, text):
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0.00126, "0.0013"),
        (0.0456, "0.046"),
        (1.2348, "1.235"),
        (12.341, "12.34"),
        (123.46, "123.5"),
    ],
)
def test_milliseconds(ms, text):
    assert ms_text(ms) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (950, "950"), (12_345, "12.3k"), (4_560_000, "4.56M")]
)
def test_counts(count, text):
    assert count_text(count) == text


@pytest.mark.parametrize(("ratio", "text"), [(1.2345, "1.23"), (0.05, "0.05"), (0.0004, "0.0004")])
def test_ratios(ratio, text):
    assert ratio_text(ratio) == text


@pytest.mark.parametrize(
    ("ratio", "interval", "text"),
    [
        (1.97, (1.9, 2.0), "1.97x (1.90-2.00)"),
        (0.85, (0.8, 0.9), "0.85x (0.80-0.90)"),
        (0.4, (0.38, 0.5), "2.5x slower (2.0-2.6)"),
        (0.044, (0.04, 0.05), "23x slower (20-25)"),
    ],
)
def test_slowdowns_are_factors(ratio, interval, text):
    assert f"{speed_text(ratio)} ({speed_interval_text(interval, ratio)})" == text
