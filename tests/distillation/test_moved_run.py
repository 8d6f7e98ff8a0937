"""A run folder that is moved while something is distilled in it."""

from pathlib import Path

import pytest

from nas.distillation.distill import Progress, distill
from nas.distillation.settings import DistillSettings
from nas.terminal.errors import UserError
from tests.support.small_targets import build_student, make_targets

SETTINGS = DistillSettings(steps=12, batch_size=2, report_every=5, checkpoint_every=3)


def test_a_run_that_was_moved_is_not_made_again_for_a_checkpoint(tmp_path: Path) -> None:
    """Its own folder is made within the run, but not the run: that would be in the way of whoever puts it back."""
    path = tmp_path / "run" / "training" / "checkpoint.pt"

    def move(progress: Progress) -> None:
        if progress.step == 4:
            (tmp_path / "run").rename(tmp_path / "elsewhere")

    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match=r"^cannot write the checkpoint: there is no such file or folder \(any more\)"):
        distill(build_student(), make_targets(), SETTINGS, device="cpu", checkpoint=path, report=move)
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "elsewhere" / "training" / "checkpoint.pt").is_file()
