"""What somebody adds is not there at every width, or fails at some size: left out with the reason, never a crash."""

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import torch

from blocks import NotBuildableError
from blocks.registry import _REGISTRY
from nas.latency.calibration_design import design_programs
from nas.machine.plugins import load_plugins
from nas.testing import CHECKS
from search_spaces import SEARCH_SPACES, LatentSpec, build_skeleton, warm_starts
from search_spaces.choices import RandomChooser
from tests.support.commands import Inputs, Shell, make_inputs
from tests.support.grouped_block import MODULE, write_plugin
from tests.support.plugin_package import forgotten_afterwards
from tests.support.run_folders import read_trials, was_trained

WAN = LatentSpec(channels=16, spatial=8, temporal=4)
TOO_LONG = "if x.shape[0] > 1: raise IndexError('no more than one frame')"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A teacher and videos."""
    return make_inputs(tmp_path_factory)


@pytest.fixture
def plugin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is searched for plugins; what is registered by them is forgotten after the test."""
    with forgotten_afterwards(tmp_path, MODULE, monkeypatch) as folder:
        yield folder


@pytest.mark.slow
@pytest.mark.parametrize("device", ["iphone-16-pro", "host"])
def test_a_part_that_is_not_there_at_a_width_is_left_out(tmp_path: Path, inputs: Inputs, device: str) -> None:
    shell = Shell(tmp_path, inputs.cache)
    arguments = ["--plugin", write_plugin(tmp_path), "--space", "groups", "--run", "R", "--device", device]
    search = inputs.arguments("--latency-budget", "100000ms", *arguments)
    done = shell.fork("nas.search", *search)
    assert done.status == 0, done.stderr
    assert "left out, grouped_conv2d cannot be built with in_channels=" in done.stderr + done.stdout
    assert "must be divisible by groups" in done.stderr + done.stdout and "Traceback" not in done.stderr
    trials = read_trials(tmp_path / "R")
    left_out = [trial for trial in trials if "unbuildable" in trial.user_attrs]
    assert left_out and all(trial.state == optuna.trial.TrialState.PRUNED for trial in left_out)
    assert sum(map(was_trained, trials)) == 2
    again = shell.fork("nas.search", *search)
    assert again.status == 0, again.stderr
    after = read_trials(tmp_path / "R")
    assert len(after) == len(trials) and not any("retry_of" in trial.user_attrs for trial in after)


@pytest.mark.parametrize(
    ("widths", "groups", "check", "reason"),
    [
        ((12, 36), "config.groups", "", "in_channels must be divisible by groups"),
        pytest.param(
            *((64,), "8 // (in_channels - 64)", "", "ZeroDivisionError: integer division or modulo by zero"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *((64,), "8", TOO_LONG, "its parts do not run together: IndexError: no more than one frame"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["refuses", "fails", "does-not-run"],
)
def test_where_nothing_can_be_built_the_search_ends_with_one_line(
    tmp_path: Path, inputs: Inputs, widths: tuple[int, ...], groups: str, check: str, reason: str
) -> None:
    shell = Shell(tmp_path, inputs.cache)
    plugin = write_plugin(tmp_path, widths=widths, groups=groups, check=check)
    arguments = inputs.arguments("--latency-budget", "100000ms", "--plugin", plugin, "--space", "groups", "--run", "R")
    done = shell.fork("nas.search", *arguments)
    last = done.stderr.splitlines()[-1]
    assert done.status == 2 and "Traceback" not in done.stderr
    assert last.startswith("error: none of the last 100 decoders can be built: ") and reason in last


def test_the_contract_says_so_first(plugin_folder: Path) -> None:
    write_plugin(plugin_folder)
    load_plugins([MODULE])
    config = _REGISTRY["grouped_conv2d"].Config()
    failed = []
    for name, check in CHECKS.items():
        try:
            check(config)
        except AssertionError as error:
            failed.append((name, str(error)))
            break
    ((name, message),) = failed
    assert name == "construction" and "cannot be built with in_channels=24, out_channels=12" in message


def test_the_contract_builds_what_spaces_offer(plugin_folder: Path) -> None:
    """A block that takes all widths of the contract, but not those of the space that names it."""
    write_plugin(plugin_folder, groups="1 if in_channels != 36 else 7")
    load_plugins([MODULE])
    with pytest.raises(AssertionError, match=r"in_channels=36.* must be divisible by groups, which the space 'groups'"):
        CHECKS["construction"](_REGISTRY["grouped_conv2d"].Config())


def test_calibration_draws_on(plugin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plugin(plugin_folder)
    load_plugins([MODULE])
    monkeypatch.setattr("nas.latency.calibration_design.SEARCH_SPACES", {"groups": SEARCH_SPACES["groups"]})
    fitted, unseen = design_programs(2, 1, 0, (0.0, 4.0))
    assert len(fitted) >= 2 and len(unseen) == 1
    for program in (*fitted, *unseen):
        assert next(build_skeleton(program.config).parameters()).is_meta


def test_warm_starts_that_cannot_be_built_are_proposed_once_and_left_out() -> None:
    """A design whose parts cannot be built does not fit, like one that is too slow: the next narrower one is asked."""
    asked = []

    def fits(config: object) -> bool:
        asked.append(config)
        return False

    titles = [title for title, _ in warm_starts(SEARCH_SPACES["memory2d"], WAN, fits)]
    assert titles == ["taehv_wan", "taehv_wan x 1/2", "taehv_wan x 1/4"] and len(asked) == 3, "none of x 1/8 is in it"


def test_a_skeleton_was_tried(plugin_folder: Path) -> None:
    write_plugin(plugin_folder, widths=(64,), check="x = x + x.flatten()[:3].reshape(1, 3, 1, 1)")
    load_plugins([MODULE])
    config = SEARCH_SPACES["groups"].suggest(RandomChooser(0), WAN)
    with pytest.raises(NotBuildableError, match="its parts do not run together: RuntimeError: Attempting to broadcast"):
        build_skeleton(config)
    assert torch.get_default_device() == torch.device("cpu")
