"""Blocks and spaces from another package: found, searched, measured, loaded again, and refused in one line."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from blocks import list_blocks
from nas.latency import Workload
from nas.latency.measurement.worker import measure_host
from nas.machine.files import read_json
from nas.machine.plugins import PLUGINS_VARIABLE, load_plugins, loaded_plugins
from nas.terminal.errors import UserError
from nas.testing import check_block, check_space
from nas.testing.space_contract import LATENTS, Dice
from search_spaces import SEARCH_SPACES
from tests.support.commands import Shell, make_inputs, refuse
from tests.support.plugin_package import MODULE, forgotten_afterwards, write_package
from tests.support.run_folders import read_trials, was_trained

ROOT = Path(__file__).parents[2]


@pytest.fixture
def nothing_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is searched for modules; what is registered by them is forgotten after the test."""
    with forgotten_afterwards(tmp_path, "my_lab", monkeypatch) as folder:
        yield folder


def test_an_installed_package_is_found(nothing_loaded: Path) -> None:
    write_package(nothing_loaded, installed=True)
    assert MODULE in load_plugins() and MODULE in loaded_plugins()
    assert "gated_conv2d" in list_blocks("block") and "my_lab" in SEARCH_SPACES
    assert load_plugins([MODULE]) == loaded_plugins(), "once"
    assert loaded_plugins().count(MODULE) == 1


def test_a_package_that_is_not_installed_is_not_looked_for(nothing_loaded: Path) -> None:
    write_package(nothing_loaded, installed=False)
    load_plugins()
    assert MODULE not in loaded_plugins() and "gated_conv2d" not in list_blocks()


def test_modules_are_named_to_child_processes(nothing_loaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("my_lab_a", "my_lab_b"):
        (nothing_loaded / f"{name}.py").touch()
    monkeypatch.setenv(PLUGINS_VARIABLE, "my_lab_a, ")
    assert load_plugins(["my_lab_b"])[-2:] == ("my_lab_a", "my_lab_b")
    assert os.environ[PLUGINS_VARIABLE] == "my_lab_a,my_lab_b"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (None, "ModuleNotFoundError: No module named 'my_lab_broken'"),
        ("x = 1\nraise RuntimeError('not\\ntoday')\n", "RuntimeError: not today, at {file}:2"),
        ("x = (\n", "SyntaxError: '(' was never closed (my_lab_broken.py, line 1)"),
        (
            "from search_spaces import SEARCH_SPACES, register_space\n"
            "register_space(SEARCH_SPACES['hybrid'], __name__)\n",
            "ValueError: search space name 'hybrid' is taken by search_spaces.hybrid: my_lab_broken has to choose",
        ),
    ],
)
def test_what_cannot_be_imported_is_one_line(nothing_loaded: Path, source: str | None, reason: str) -> None:
    file = nothing_loaded / "my_lab_broken.py"
    if source is not None:
        file.write_text(source)
    with pytest.raises(UserError) as caught:
        load_plugins(["my_lab_broken"])
    message = str(caught.value)
    assert message.startswith(f"the plugin 'my_lab_broken' cannot be loaded ({reason.format(file=file)}")
    assert "\n" not in message and message.endswith("a module that registers its parts when it is imported")
    assert "my_lab_broken" not in loaded_plugins() and os.environ[PLUGINS_VARIABLE] == ""


def test_a_command_refuses_it_with_status_2(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    shell = Shell(tmp_path, make_inputs(tmp_path_factory).cache)
    for module in ("nas.finalize", "nas.teachers"):
        refuse(shell, module, ["--plugin", "my_lab"], "the plugin 'my_lab' cannot be loaded (ModuleNotFoundError: ")


@pytest.mark.slow
def test_it_is_searched(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    inputs = make_inputs(tmp_path_factory)
    write_package(tmp_path, installed=False)
    shell = Shell(tmp_path, inputs.cache)
    plugin = ["--plugin", MODULE, "--space", "my_lab", "--run", "R"]
    done = shell.fork("nas.search", *inputs.arguments("--latency-budget", "1000ms", *plugin))
    assert (done.status, done.stderr) == (0, ""), done.stderr
    trained = [trial for trial in read_trials(tmp_path / "R") if was_trained(trial)]
    assert {trial.params["stage0.gated_conv2d.kernel_size"] for trial in trained} <= {3, 5}
    assert len(trained) == 2
    assert read_json(tmp_path / "R" / "config.json")["settings"]["plugins"] == [MODULE]
    done = shell.fork("nas.latency", "measure", "R", "--device", "host", "--top", "1")
    assert done.status == 0, "a run knows its plugins: they need not be named again"
    refuse(shell, "nas.search", inputs.arguments("--space", "my_lab", "--run", "R"), "unknown search space 'my_lab'")


@pytest.mark.slow
def test_its_contract_runs(nothing_loaded: Path) -> None:
    write_package(nothing_loaded, installed=False)
    load_plugins([MODULE])
    check_block("gated_conv2d")
    check_space(SEARCH_SPACES["my_lab"])


@pytest.mark.slow
def test_a_measuring_process_knows_it(nothing_loaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_package(nothing_loaded, installed=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(nothing_loaded)]))
    load_plugins([MODULE])
    config = SEARCH_SPACES["my_lab"].suggest(Dice(0), LATENTS["16ch-4x8x8-leading"])
    assert measure_host(config.to_dict(), Workload(16, 16, 1), torch.device("cpu"), 120).ms_per_frame > 0


@pytest.mark.slow
def test_a_model_with_it_loads_in_any_script(tmp_path: Path) -> None:
    write_package(tmp_path, installed=True)
    script = """
import sys
import torch
from nas.model import TurboVAED
from nas.testing.space_contract import LATENTS, Dice
from search_spaces import SEARCH_SPACES
if sys.argv[1] == "save":
    config = SEARCH_SPACES["my_lab"].suggest(Dice(0), LATENTS["16ch-4x8x8-leading"])
    TurboVAED(architecture=config.to_dict(), teacher="wan").save_pretrained("model")
print(*TurboVAED.from_pretrained("model").decode(torch.zeros(1, 16, 1, 2, 2)).sample.shape)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    for word in ("save", "load"):
        command = [sys.executable, "-c", script, word]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.stdout.split() == ["1", "3", "1", "16", "16"], done.stderr
    shutil.rmtree(tmp_path / "my_lab-1.0.dist-info")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "unknown part 'gated_conv2d'" in done.stderr
