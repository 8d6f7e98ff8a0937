"""The distance of rFVD and the network that it is taken with, as far as they can be checked without its weights."""

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from nas.evaluation.rfvd import FirstFrames, distance
from nas.metrics import frechet_distance
from nas.metrics.i3d import FEATURES, I3D, LEAST_FRAMES, _padded, for_i3d, load_i3d
from nas.terminal.errors import UserError


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def network() -> I3D:
    """With random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return I3D()


def test_the_distance_is_that_of_its_formula() -> None:
    """With the root of a matrix by SciPy."""
    one, other = numbers(60, 12), numbers(50, 12, seed=1) @ numbers(12, 12, seed=2) * 0.3 + 0.5
    covariances = [np.cov(each.numpy(), rowvar=False) for each in (one, other)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    gap = one.mean(dim=0) - other.mean(dim=0)
    wanted = float(gap @ gap) + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(one, other) == pytest.approx(wanted, rel=1e-6)
    assert frechet_distance(other, one) == pytest.approx(wanted, rel=1e-6)


def test_the_distance_of_a_set_from_itself_is_nothing_and_of_a_shifted_one_its_square() -> None:
    few = numbers(5, FEATURES)
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(few + 0.5, few) == pytest.approx(0.25 * FEATURES, rel=1e-6)
    assert frechet_distance(few * 2, few) > 1


def test_sets_without_a_covariance_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two samples"):
        frechet_distance(numbers(1, 4), numbers(3, 4))
    with pytest.raises(ValueError, match="expected sets"):
        frechet_distance(numbers(3, 4), numbers(3, 5))


def test_the_network_has_the_published_size(network: I3D) -> None:
    """12,697,264 parameters for 400 classes; a name of each kind is where the port to PyTorch has it."""
    assert sum(parameter.numel() for parameter in network.parameters()) == 12_697_264
    names = network.state_dict().keys()
    assert {"Conv3d_1a_7x7.conv3d.weight", "Mixed_3b.b1a.bn.running_mean", "logits.conv3d.bias"} <= names
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(("size", "kernel", "stride"), [(224, 7, 2), (17, 3, 2), (9, 7, 2), (8, 2, 2), (7, 3, 1)])
def test_padding_leaves_as_many_positions_as_tensorflows(size: int, kernel: int, stride: int) -> None:
    """ceil(size / stride), and the odd zero at the end."""
    padded = _padded(torch.ones(1, 1, size, size, size), (kernel,) * 3, (stride,) * 3)
    row = padded[0, 0, padded.shape[2] // 2, padded.shape[3] // 2]
    assert (len(row) - kernel) // stride + 1 == -(-size // stride)
    before, after = int(row.argmax()), len(row) - size - int(row.argmax())
    assert after - before in (0, 1)


def test_frames_reach_it_in_its_size_and_range() -> None:
    video = torch.rand(2, 3, 4, 20, 30)
    seen = for_i3d(video, (0.0, 1.0))
    assert seen.shape == (2, 3, 4, 224, 224) and seen.min() >= -1 and seen.max() <= 1
    frame = functional.interpolate(video[1, :, 2:3].transpose(0, 1), (224, 224), mode="bilinear") * 2 - 1
    assert torch.allclose(seen[1, :, 2], frame[0], atol=1e-6)


def test_weights_come_from_a_file_and_nothing_else_does(network: I3D, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "i3d.pt")
    save_file(network.state_dict(), tmp_path / "i3d.safetensors")
    for name in ("i3d.pt", "i3d.safetensors"):
        assert torch.equal(load_i3d(tmp_path / name).logits.conv3d.weight, network.logits.conv3d.weight)
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("no weights")
    torch.save(network, tmp_path / "object.pt")
    for name in ("other.pt", "text.pt", "object.pt", "none.pt"):
        with pytest.raises(UserError, match=r"expected the weights of I3D") as caught:
            load_i3d(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_the_first_frames_count_however_they_come(network: I3D) -> None:
    """In chunks or at once, and no more than the first 17."""
    videos = [torch.rand(1, 3, 20, 16, 16) * 2 - 1 for _ in range(2)]
    whole, pieces, short = FirstFrames(), FirstFrames(), FirstFrames()
    whole.add(videos)
    for first in range(0, 20, 5):
        pieces.add([video[:, :, first : first + 5] for video in videos])
    found = whole.features(network)
    assert found is not None and found.shape == (2, FEATURES)
    at_once = network(torch.cat([for_i3d(video[:, :, :17], (-1.0, 1.0)) for video in videos]))
    assert torch.allclose(found, at_once, atol=1e-5)
    assert torch.allclose(found, pieces.features(network), atol=1e-5)  # type: ignore[arg-type]
    short.add([video[:, :, : LEAST_FRAMES - 1] for video in videos])
    assert short.features(network) is None
    assert distance([found, None], 1, 0) is None
    value, clips = distance([found, found + 1, None], 1, 0)  # type: ignore[misc]
    assert clips == 2 and value == pytest.approx(
        frechet_distance(*(torch.stack([row, row + 1]) for row in found.flip(0)))
    )
