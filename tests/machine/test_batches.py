"""Batches that are halved when memory runs out."""

import weakref

import pytest
import torch
from torch import Tensor

from nas.machine.batches import DoesNotFitError, halving, in_batches, out_of_memory_as
from nas.terminal.memory_reasons import is_out_of_memory
from nas.terminal.parser import run_command
from tests.support.small_memory import of_a_cpu, of_a_gpu

CPU = torch.device("cpu")


def test_what_allocators_raise_is_recognised() -> None:
    for allocate in (of_a_gpu, of_a_cpu):
        with pytest.raises(RuntimeError) as caught:
            allocate()
        assert is_out_of_memory(caught.value)
    texts = (
        "MPS backend out of memory (MPS allocated: 9 GB)",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED",
        "not enough memory",
    )
    assert all(is_out_of_memory(RuntimeError(text)) for text in texts)
    assert is_out_of_memory(torch.OutOfMemoryError("")) and is_out_of_memory(MemoryError())
    others = (RuntimeError("shapes differ"), ValueError("out of memory"), OSError(12, "Cannot allocate memory"))
    assert not any(is_out_of_memory(error) for error in others)


@pytest.mark.parametrize(
    ("most", "tried"), [(9, [9]), (8, [9, 5]), (4, [9, 5, 3]), (2, [9, 5, 3, 2]), (1, [9, 5, 3, 2, 1])]
)
def test_it_is_tried_with_half_until_it_fits(most: int, tried: list[int]) -> None:
    asked: list[int] = []

    def work(size: int) -> str:
        asked.append(size)
        if size > most:
            of_a_gpu()
        return f"done with {size}"

    assert halving(work, 9, CPU) == (f"done with {tried[-1]}", tried[-1])
    assert asked == tried


def test_what_an_attempt_allocated_is_gone_when_the_next_begins() -> None:
    """The error would hold it: its traceback has the frames, and they have the tensors."""
    before: list[weakref.ref[Tensor]] = []

    def work(size: int) -> int:
        assert not any(reference() is not None for reference in before)
        activations = torch.zeros(size)
        before.append(weakref.ref(activations))
        if size > 1:
            of_a_gpu()
        return size

    assert halving(work, 8, CPU) == (1, 1) and len(before) == 4


def test_one_sample_that_does_not_fit_is_told_and_other_errors_are_not_touched() -> None:
    with pytest.raises(DoesNotFitError, match=r"^cpu is out of memory with a single sample$"):
        halving(lambda size: of_a_cpu(), 4, CPU)

    def wrong(size: int) -> None:
        raise RuntimeError(f"shapes differ in a batch of {size}")

    with pytest.raises(RuntimeError, match="shapes differ in a batch of 4"):
        halving(wrong, 4, CPU)
    with pytest.raises(RuntimeError, match="shapes differ"), out_of_memory_as(ValueError("another")):
        wrong(1)
    with pytest.raises(ValueError, match="another"), out_of_memory_as(ValueError("another")):
        of_a_gpu()


def test_every_index_is_worked_on_once_and_in_order() -> None:
    asked: list[list[int]] = []

    def work(indices: list[int]) -> int:
        asked.append(indices)
        if len(indices) > 2 and 5 in indices:
            of_a_gpu()
        return sum(indices)

    found = list(in_batches(work, 9, 4, CPU))
    assert found == [([0, 1, 2, 3], 6), ([4, 5], 9), ([6, 7], 13), ([8], 8)]
    assert asked == [[0, 1, 2, 3], [4, 5, 6, 7], [4, 5], [6, 7], [8]]
    assert list(in_batches(work, 0, 4, CPU)) == []


def test_a_command_that_runs_out_of_memory_ends_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(of_a_cpu, continue_with=None) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: memory has run out: ") and line.count("\n") == 1 and "larger machine" in line
