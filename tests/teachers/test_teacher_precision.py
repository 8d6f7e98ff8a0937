"""Half precision, and memory of longer clips, over all teachers: small instances with random weights."""

from pathlib import Path

import torch

from nas.machine.memory import peak_bytes
from nas.teachers import Teacher, load_teacher
from tests.support.small_teachers import IN_PIECES, random_latents


def test_half_precision_is_close_to_float32(teacher: Teacher) -> None:
    """In the precision that a GPU computes in, here on the CPU."""
    half = load_teacher(teacher.name, Path(teacher.source))
    assert half.dtype == torch.float32
    half.dtype = half.gpu_dtype
    latents, taps = random_latents(teacher.spec, 3), teacher.tap_names[:2]
    frames, features = half.decode_with_features(latents, taps)
    exact, exact_features = teacher.decode_with_features(latents, taps)
    pairs = [(frames, exact), *((features[name], exact_features[name]) for name in taps)]
    if teacher.name != "cosmos":  # PyTorch has no 3-D pooling in bfloat16 on a CPU, which its encoder needs
        pairs.append((half.encode(exact), teacher.encode(exact)))
    assert {parameter.dtype for parameter in half.model.parameters()} == {half.gpu_dtype}
    for found, expected in pairs:
        error = float((found - expected).square().mean().sqrt() / expected.std())
        assert found.dtype == torch.float32
        assert error < 0.1 and (error > 0) == (half.gpu_dtype != torch.float32)


def test_memory_of_a_longer_clip(teacher: Teacher) -> None:
    """Decoding takes as much for a long clip as for a short one where it goes piece by piece."""

    def decoding(num_latents: int) -> int:
        latents = random_latents(teacher.spec, num_latents, 8, 8).to("meta")
        frames = teacher.spec.num_frames(num_latents) * 3 * (8 * teacher.spec.spatial) ** 2 * 4
        return peak_bytes(lambda: teacher.run_decoder(teacher.skeleton, latents)) - 2 * frames

    grows = decoding(8) / decoding(4)
    assert grows < 1.1 if teacher.name in IN_PIECES else 1.6 < grows < 4
