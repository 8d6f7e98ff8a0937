"""What single parts promise beyond the contract."""

import pytest
import torch
from torch import Tensor

from blocks import build_block, get_block
from blocks.haar_head import inverse_haar
from blocks.layers.norms import BatchNorm
from blocks.layers.upsampler import duplicate_channels
from blocks.time_context import TimeContext, channels_to_frames, time_padding


def haar(x: Tensor) -> Tensor:
    """Bands of `(n, c, 2 h, 2 w)` by their definition: means and differences of each 2x2 cell, halved sums."""
    a, b, c, d = x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]
    return torch.cat([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], dim=1) / 2


def test_haar_bands_become_the_picture_that_they_are_of() -> None:
    picture = torch.randn(2, 3, 8, 12)
    assert torch.allclose(inverse_haar(haar(picture)), picture, atol=1e-6)
    bands = torch.randn(2, 12, 4, 6)
    assert inverse_haar(bands).square().sum().item() == pytest.approx(bands.square().sum().item(), rel=1e-5)


def test_channels_are_duplicated_side_by_side() -> None:
    x = torch.arange(3.0).view(1, 3, 1, 1)
    for channels, wanted in ((2, [0, 1]), (3, [0, 1, 2]), (6, [0, 0, 1, 1, 2, 2]), (7, [0, 0, 0, 1, 1, 1, 2])):
        assert duplicate_channels(x, channels).flatten().tolist() == wanted


def test_groups_of_channels_become_frames() -> None:
    x = torch.arange(8.0).view(2, 4, 1, 1)
    assert channels_to_frames(x, 2).flatten(1).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_time_around_a_kernel() -> None:
    assert [time_padding(size, "causal") for size in (1, 3, 5)] == [(0, 0), (2, 0), (4, 0)]
    assert [time_padding(size, "bidirectional") for size in (1, 3, 5)] == [(0, 0), (1, 1), (2, 2)]


def test_batch_norm_learns_statistics_in_training_and_keeps_them_in_evaluation() -> None:
    norm = BatchNorm(4)
    x = 3 * torch.randn(8, 4, 5, 6, 7) + 2
    trained = norm(x)
    assert trained.mean().abs() < 1e-4 and abs(trained.std().item() - 1) < 1e-2
    for _ in range(100):
        norm(x)
    norm.eval()
    assert torch.allclose(norm(x), trained, atol=1e-2)
    alone = norm(x[:1])
    assert torch.equal(alone, norm(x)[:1]) and torch.allclose(norm(x[:, :, 0]), norm(x)[:, :, 0], atol=1e-6)


def test_a_block_without_time_sees_none() -> None:
    """`residual_conv2d` may stand in a stream without any state."""
    block = build_block(get_block("residual_conv2d").Config(), 8, out_channels=8)
    time_context = TimeContext(1, "causal", drop_leading=False, streaming=True)
    block(torch.randn(3, 8, 4, 4), time_context)
    assert time_context.new_state == ()
