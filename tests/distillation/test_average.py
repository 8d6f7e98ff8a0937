"""The moving average of a student's weights."""

import copy

import pytest
import torch
from torch import Tensor, nn

from nas.distillation.checkpoint import update_average
from nas.distillation.schedule import average_decay
from tests.support.small_targets import build_student


def test_the_average_moves_and_counts_are_copied() -> None:
    class Part(nn.Module):
        weight: Tensor
        count: Tensor

        def __init__(self, weight: float, count: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([weight, 0.0]))
            self.register_buffer("count", torch.tensor(count))

    average, module = Part(1.0, 3), Part(2.0, 4)
    update_average(average, module, decay=0.9)
    assert average.weight.tolist() == pytest.approx([1.1, 0.0]) and average.count.item() == 4
    assert module.weight.tolist() == [2.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_formula_to_the_last_bit(dtype: torch.dtype) -> None:
    """Of a whole student whose weights change, step after step, with the decay that grows."""
    student = build_student().to(dtype)
    average = copy.deepcopy(student)
    expected = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    for step in range(40):
        for parameter in student.state_dict().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(dtype), alpha=0.1)
        decay = average_decay(step, 0.7)
        update_average(average, student, decay)
        for name, new in student.state_dict().items():
            expected[name].lerp_(new, 1 - decay)
    found = average.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name
        assert not torch.equal(tensor, student.state_dict()[name]), name
