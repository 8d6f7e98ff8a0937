"""What every test of a whole command starts from."""

from pathlib import Path

import pytest

from tests.support.commands import Inputs, Shell, make_continued_run, make_inputs, make_run


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A teacher and videos."""
    return make_inputs(tmp_path_factory)


@pytest.fixture
def shell(tmp_path: Path, inputs: Inputs) -> Shell:
    """An empty folder to run commands in."""
    return Shell(tmp_path, inputs.cache)


@pytest.fixture(scope="session")
def kept_run(inputs: Inputs) -> Path:
    """A finished search of two trials; to be copied, not changed."""
    return make_run(inputs)


@pytest.fixture(scope="session")
def undisturbed(inputs: Inputs) -> Path:
    """The same run with a third trial, which nothing stopped; to be read only."""
    return make_continued_run(inputs)
