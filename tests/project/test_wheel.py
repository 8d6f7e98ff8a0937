"""The wheel of a clean clone, in a new environment: without extras it loads a model, with `search` it makes one."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from nas.model import TurboVAED
from search_spaces import PRESETS, adapt
from tests.support.commands import Inputs, make_inputs

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Environment:
    """A virtual environment with nothing in it but what the wheel asks for, in a folder with nothing else."""

    folder: Path
    wheel: Path

    def install(self, extra: str = "") -> None:
        """The wheel, with an extra such as "[search]"."""
        constraints = ["--constraint", str(ROOT / "constraints.txt")]
        done = self.run("python", "-m", "pip", "install", "--quiet", *constraints, f"{self.wheel}{extra}")
        assert done.returncode == 0, done.stderr

    def run(self, program: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """A program of the environment, which sees neither this repository nor a hub."""
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "NAS_PLUGINS")}
        kept |= {"NAS_CACHE": str(self.folder / "cache"), "HF_HUB_OFFLINE": "1", **variables}
        command = [str(self.folder / "venv" / "bin" / program), *arguments]
        return subprocess.run(command, cwd=self.folder, env=kept, capture_output=True, text=True, timeout=1800)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder / "clone")], check=True)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
    subprocess.run([*build, str(folder / "clone")], check=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    (wheel,) = folder.glob("*.whl")
    made = Environment(folder, wheel)
    made.install()
    yield made
    # Gigabytes that pytest would keep for two more sessions.
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_the_wheel_holds_the_program_and_nothing_else(environment: Environment) -> None:
    with zipfile.ZipFile(environment.wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith("/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    folders = {name.split("/")[0] for name in names}
    assert {name for name in folders if not name.endswith(".dist-info")} == {"blocks", "search_spaces", "nas"}
    tracked = subprocess.run(["git", "ls-files", "nas"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {name for name in names if name.startswith("nas/")} == set(tracked.split())
    assert {"blocks/py.typed", "search_spaces/py.typed"} <= names
    assert "License-Expression: Apache-2.0" in lines and any(name.endswith("licenses/LICENSE") for name in names)


def test_without_extras_a_model_loads(environment: Environment) -> None:
    preset = PRESETS["turbo_vaed_cog"]
    torch.manual_seed(0)
    model = TurboVAED(architecture=adapt(preset, preset.latents, 16).to_dict(), teacher="cogvideox").eval()
    model.save_pretrained(environment.folder / "model")
    latents = torch.randn(1, 16, 2, 4, 4)
    torch.save(latents, environment.folder / "latents.pt")
    script = """
import torch
from nas.model import TurboVAED
vae = TurboVAED.from_pretrained("model").eval()
with torch.no_grad():
    torch.save(vae.decode(torch.load("latents.pt")).sample, "frames.pt")
"""
    done = environment.run("python", "-c", script)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = model.decode(latents, return_dict=False)[0]
    assert torch.allclose(torch.load(environment.folder / "frames.pt"), expected, atol=1e-5)


def test_without_extras_commands_are_listed_and_say_what_they_need(environment: Environment) -> None:
    done = environment.run("turbo-vaed", "--help")
    assert done.returncode == 0 and {"search", "finalize", "export"} <= set(done.stdout.split())
    done = environment.run("turbo-vaed", "search", "--latency-budget", "30ms")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: this needs ") and done.stderr.count("\n") == 1
    assert done.stderr.endswith(", which is not installed: pip install 'turbo-vaed-nas[search]'\n")


def test_with_the_extra_it_searches_and_finalizes(
    environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    environment.install("[search]")
    inputs: Inputs = make_inputs(tmp_path_factory)
    done = environment.run("turbo-vaed", "search", *inputs.arguments("--run", "R"))
    assert done.returncode == 0, done.stderr
    done = environment.run("turbo-vaed", "finalize", "R", "--steps", "2")
    assert done.returncode == 0, done.stderr
    (evaluation,) = (environment.folder / "R" / "models").glob("*/evaluation.json")
    numbers = json.loads(evaluation.read_text())
    assert list(numbers["core_ml"]) == ["packages"]
    assert numbers["versions"]["turbo-vaed-nas"] and "fvcore" not in numbers["versions"]
