"""Adding a block, as the README describes it: one file, its name in a space, the contract, and a search."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.test_docs import python_snippet
from tests.support.commands import Shell, make_inputs
from tests.support.run_folders import read_trials, was_trained

ROOT = Path(__file__).parents[2]
SPACE = '''"""Decoders of the new block."""

from search_spaces.space import Level, SearchSpace

SPACE = SearchSpace(
    name="dilated",
    description="the new block at every resolution",
    stems=("conv2d_stem",),
    levels=(Level(("dilated_conv2d",), widths=(8, 16), depths=(1, 2)),),
    upsamplers=("nearest_conv2d",),
    heads=("pixel_shuffle_head",),
    plain_heads=("conv3d_head",),
)
'''


@pytest.mark.slow
def test_a_new_file_is_tested_and_searched(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    inputs = make_inputs(tmp_path_factory)
    for package in ("blocks", "search_spaces", "nas", "scripts", "tests"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "blocks" / "dilated_conv2d.py").write_text(python_snippet("dilated_conv2d"))
    (tmp_path / "search_spaces" / "dilated.py").write_text(SPACE)

    contract = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/blocks/test_blocks.py"]
    done = subprocess.run([*contract, "-k", "dilated_conv2d"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout

    shell = Shell(tmp_path, inputs.cache)
    search = shell.run("nas.search", *inputs.arguments("--space", "dilated", "--trials", "3", "--run", "run"))
    assert search.status == 0, search.stderr
    trained = [trial for trial in read_trials(tmp_path / "run") if was_trained(trial)]
    assert len(trained) == 3
    assert {trial.params["stage0.dilated_conv2d.dilation"] for trial in trained} <= {2, 4}
