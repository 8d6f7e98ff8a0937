"""The devices that the tests of this folder run on."""

from collections.abc import Iterator

import pytest
import torch

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, which shows that a test does what it says; then a GPU."""
    return _there(request.param)


@pytest.fixture(params=[CUDA])
def cuda(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """A GPU, for what only a GPU does."""
    yield _there(request.param)
    torch.cuda.empty_cache()


def _there(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device(name)
