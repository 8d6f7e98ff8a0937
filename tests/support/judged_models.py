"""A small teacher with random weights, students of it, and clips, for everything that judges finished models."""

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from nas.evaluate.__main__ import main
from nas.model import TurboVAED
from nas.teachers import Teacher
from tests.support.small_decoders import small_config
from tests.support.small_teachers import open_small
from tests.support.videos import write_video


@dataclass(frozen=True)
class Stage:
    """What can be judged."""

    teacher: Teacher
    """A small Wan, which streams."""
    weights: Path
    """Its weights."""
    first: Path
    """A causal student."""
    second: Path
    """Another one of the same architecture."""
    bidirectional: Path
    """One that decodes whole clips alone."""
    clips: Path
    """Two videos without loss, of 15 and 9 frames of 32x48."""


def make_stage(folder: Path) -> Stage:
    """All of it in a folder."""
    teacher = open_small("wan", folder)
    causal = small_config(teacher.spec)
    for name, seed in (("first", 0), ("second", 1), ("bidirectional", 2)):
        config = replace(causal, temporal_mode="bidirectional") if name == "bidirectional" else causal
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = TurboVAED(config.to_dict(), "wan")
            model.decoder.initialise_from_latent_statistics()
        model.save_pretrained(folder / name)
    write_video(folder / "clips" / "a.mkv", 15, video=1)
    write_video(folder / "clips" / "b.mkv", 9, video=2)
    return Stage(teacher, folder / "wan", *(folder / name for name in ("first", "second", "bidirectional", "clips")))


def run_evaluate(*arguments: object) -> tuple[int, str, str]:
    """Exit status, output and errors of `python -m nas.evaluate`, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            status = int(stopped.code or 0)
    return status, out.getvalue(), err.getvalue()
