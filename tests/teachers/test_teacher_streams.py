"""Teachers that stream: every way of cutting a clip gives what one pass over it gives."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.teachers import Teacher, load_teacher
from tests.support.small_teachers import open_small, random_latents, random_video


def streamed(step: Any, whole: Tensor, sizes: list[int]) -> Tensor:
    """What a stream gives of a clip in chunks of these sizes; states are used twice, which must change nothing."""
    found, state = [], None
    for chunk in torch.split(whole, sizes, dim=2):
        step(chunk, state)
        piece, state = step(chunk, state)
        found.append(piece)
    return torch.cat(found, dim=2)


@pytest.mark.parametrize("name", ["wan", "wan2.2"])
def test_a_stream_gives_what_one_pass_gives(name: str, tmp_path: Path) -> None:
    teacher = open_small(name, tmp_path)
    size = 2 * teacher.spec.spatial
    video = random_video(17, size, size)
    latents = teacher.encode(video)
    for sizes in ([17], [1, 4, 8, 4], [9, 8], [5, 4, 4, 4]):
        assert torch.allclose(streamed(teacher.encode_chunk, video, sizes), latents, atol=1e-5)
    noise = random_latents(teacher.spec, 5, 2, 2)
    frames = teacher.decode(noise)
    for sizes in ([5], [1, 1, 1, 1, 1], [2, 3], [1, 4]):
        assert torch.allclose(streamed(teacher.decode_chunk, noise, sizes), frames, atol=1e-5)


def test_one_that_does_not_stream_says_so(tmp_path: Path) -> None:
    teacher = open_small("hunyuan", tmp_path)
    assert not teacher.streams
    with pytest.raises(NotImplementedError, match="hunyuan encodes whole clips only"):
        teacher.encode_chunk(torch.zeros(1, 3, 1, 16, 16))
    with pytest.raises(NotImplementedError, match="hunyuan decodes whole clips only"):
        teacher.decode_chunk(torch.zeros(1, 16, 1, 2, 2))


def test_the_embedded_teacher_streams() -> None:
    teacher: Teacher = load_teacher("wan-tiny")
    video = random_video(9, 32, 32)
    latents = teacher.encode(video)
    assert torch.allclose(streamed(teacher.encode_chunk, video, [5, 4]), latents, atol=1e-4)
    assert torch.allclose(streamed(teacher.decode_chunk, latents, [2, 1]), teacher.decode(latents), atol=1e-4)
