"""Dense 3-D convolutions frame by frame: what PyTorch makes, for a while and on a CPU only."""

import pytest
import torch
from torch import Tensor, nn

from nas.machine import fast_convolutions as module
from nas.machine.fast_convolutions import fast_convolutions

CPU = torch.device("cpu")


def computed(conv: nn.Conv3d, x: Tensor, device: torch.device = CPU) -> Tensor:
    with fast_convolutions(device):
        out: Tensor = conv(x)
    return out


@pytest.mark.parametrize("most_joined", [1, 2**14, 2**26], ids=["as they are", "a few frames at a time", "all at once"])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        ((3, 3, 3), 1, (0, 1, 1), 1),
        ((3, 1, 1), (2, 1, 1), 0, 1),
        ((1, 3, 3), (1, 2, 2), (0, 1, 0), 1),
        ((2, 3, 1), (1, 2, 1), 1, (2, 1, 1)),
        ((1, 1, 1), (3, 1, 1), 0, 1),
    ],
)
def test_the_same_numbers(
    most_joined: int, kernel: object, stride: object, padding: object, dilation: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_JOINED", most_joined)
    for bias in (True, False):
        conv = nn.Conv3d(6, 5, kernel, stride, padding, dilation, bias=bias)  # type: ignore[arg-type]
        x = torch.randn(2, 6, 7, 9, 8)
        with torch.no_grad():
            torch.testing.assert_close(computed(conv, x), conv(x), rtol=1e-5, atol=1e-5)


def test_other_convolutions_stay_as_they_are() -> None:
    """Grouped ones, other kinds of numbers, padding by name, a single clip without a batch."""
    grouped, half = nn.Conv3d(4, 4, 3, groups=2), nn.Conv3d(4, 4, 3).bfloat16()
    named, dense = nn.Conv3d(4, 4, 3, padding="same"), nn.Conv3d(4, 4, 3)
    x = torch.randn(1, 4, 3, 5, 5)
    for conv, given in ((grouped, x), (half, x.bfloat16()), (named, x), (dense, x[0])):
        with torch.no_grad():
            assert torch.equal(computed(conv, given), conv(given))


def test_too_few_frames_are_refused_as_ever() -> None:
    with pytest.raises(RuntimeError, match=r"[Kk]ernel"):
        computed(nn.Conv3d(2, 2, 3), torch.randn(1, 2, 2, 5, 5))


def test_nothing_learns_and_nothing_remains() -> None:
    conv, x = nn.Conv3d(2, 2, 3), torch.randn(1, 2, 3, 5, 5)
    assert not computed(conv, x).requires_grad
    with pytest.raises(KeyError), fast_convolutions(CPU):
        raise KeyError
    plain = conv(x)
    assert plain.requires_grad
    assert torch.equal(plain, torch.conv3d(x, conv.weight, conv.bias))


def test_another_device_computes_as_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Tensor:
        raise AssertionError("asked for another form")

    monkeypatch.setattr(module, "_conv3d", refuse)
    conv, x = nn.Conv3d(2, 2, 3), torch.randn(1, 2, 3, 5, 5)
    computed(conv, x, torch.device("cuda"))
    with pytest.raises(AssertionError, match="another form"):
        computed(conv, x)
