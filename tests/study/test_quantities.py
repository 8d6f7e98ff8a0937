"""Limits as they are written on the command line, kept in a run's settings, and compared."""

from dataclasses import replace

import pytest

from nas.distillation.recipes import CPU
from nas.latency import Workload
from nas.search import make_parser
from nas.study.options import describe_budget, open_devices, run_settings
from nas.study.quantities import parse_bytes, parse_count
from nas.study.settings import RunSettings, difference
from nas.terminal.errors import UserError
from tests.support.small_runs import SETTINGS


def settings(*words: str) -> RunSettings:
    arguments = make_parser().parse_args(["--latency-budget", "30ms", *words])
    return run_settings(arguments, Workload(64, 64, 5), CPU)


def test_numbers_are_read_with_their_units() -> None:
    assert [parse_count(text) for text in ("5M", "500 k", "5000000", ".5m", "1G")] == [5e6, 5e5, 5e6, 5e5, 1e9]
    assert [parse_bytes(text) for text in ("200MB", "1.5 gb", "300kB", "12B")] == [2e8, 1.5e9, 3e5, 12]


@pytest.mark.parametrize("text", ["", "5", "MB", "0MB", "-3MB", "20 MiB", "nanMB", "1e3MB", "20MB!", "9" * 400 + "MB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size such as 20MB"):
        parse_bytes(text)
    with pytest.raises(UserError, match="--max-size: expected a size such as 20MB"):
        settings(f"--max-size={text}")


def test_the_constraints_are_in_one_order_whatever_that_of_the_words() -> None:
    limits = ["--max-size", "20MB", "--max-memory", "200 MB", "--max-params", "5M"]
    made = settings(*limits, "--device", "iphone-16-pro", "--device", "host")
    names = [constraint.name for constraint in made.constraints]
    assert names == sorted(names) == ["latency", "latency on host", "memory", "parameters", "size"]
    assert [constraint.limit for constraint in made.constraints] == [30.0, 30.0, 200.0, 5.0, 20.0]
    assert made.limits_footprint and made.devices == ("iphone-16-pro", "host")
    assert made.describe_constraints().startswith(
        "30 ms per frame on iphone-16-pro, 30 ms per frame on host, 200 MB of"
    )
    assert not settings("--max-params", "5M").limits_footprint
    assert [constraint.describe() for constraint in settings().constraints] == ["30 ms per frame"]


def test_how_a_limit_is_written_makes_no_other_search() -> None:
    made = settings("--max-size", "20MB", "--max-params", "5M")
    assert difference(made, settings("--max-size", "20000kb", "--max-params", "5000 k")) == ""
    assert difference(made, settings("--max-size", "20MB")) == "--max-params 5M, not none"
    assert difference(made, replace(made, max_size="30MB")) == "--max-size 20MB, not 30MB"
    two = replace(SETTINGS, more_devices=("host",))
    assert difference(SETTINGS, two) == "--device iphone-16-pro, not iphone-16-pro and host"


def test_a_device_is_named_once() -> None:
    with pytest.raises(UserError, match="--device host is given twice"):
        settings("--device", "host", "--device", "host")
    with pytest.raises(ValueError, match="a device is named twice"):
        replace(SETTINGS, more_devices=("iphone-16-pro",))


def test_the_budget_is_said_for_every_device_and_the_other_limits_once() -> None:
    words = ["--latency-budget", "30ms", "--device", "iphone-16-pro", "--device", "host", "--max-size", "20MB"]
    arguments = make_parser().parse_args(words)
    first, second, third = describe_budget(run_settings(arguments, Workload(64, 64, 5), CPU), open_devices(arguments))
    assert first.startswith("30 ms per frame at 64x64 x 5 frames, predicted for iphone-16-pro")
    assert second.startswith("30 ms per frame at 64x64 x 5 frames, measured on this machine")
    assert third == "at most 20 MB of package"
