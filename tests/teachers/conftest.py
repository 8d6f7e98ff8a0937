"""What tests of teachers share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from nas.teachers import Teacher, load_teacher
from tests.support.small_teachers import EACH, make_weights


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    """Teachers are frozen: nothing here needs a gradient."""
    with torch.no_grad():
        yield


@pytest.fixture
def plain_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions in the order of additions of the library, for comparisons bit by bit."""
    monkeypatch.setattr("nas.machine.fast_convolutions.has_onednn", lambda _: False)


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Weights by the name of the teacher, made when they are first asked for."""
    base = tmp_path_factory.mktemp("teachers")
    return lambda name: base / name if (base / name).exists() else make_weights(name, base / name)


@pytest.fixture(scope="session", params=EACH)
def teacher(request: pytest.FixtureRequest, folder_of: Callable[[str], Path]) -> Teacher:
    """Each of the teachers in turn."""
    return load_teacher(request.param, folder_of(request.param))
