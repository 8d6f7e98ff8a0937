"""Several processes distil one student together, as a launcher starts them (gloo, on CPUs)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.distillation.phases import load_phases
from nas.machine.processes import ALONE, Processes
from nas.terminal.errors import UserError

ROOT = Path(__file__).parents[2]
STEPS, DIES_AT = 20, 12

PROGRAM = """
import json, os, signal, sys
from pathlib import Path

from nas.distillation.distill import distill
from nas.distillation.settings import DistillSettings
from nas.machine.processes import join_processes
from nas.terminal.parser import run_command
from tests.support.small_targets import build_student, make_targets


def work():
    losses = []
    with join_processes() as processes:

        def report(progress):
            losses.append(progress.loss)
            if progress.step == int(sys.argv[2]) and not processes.is_first:
                os.kill(os.getpid(), signal.SIGKILL)

        settings = DistillSettings(
            steps=20, batch_size=2, learning_rate=3e-3, report_every=5, checkpoint_every=5, precision="float32",
            adversarial_weight=0.1, critic_rate_factor=0.1,
        )
        result = distill(
            build_student(), make_targets(), settings, device="cpu", checkpoint=Path(sys.argv[1]), report=report,
            setback=print, processes=processes,
        )
        if processes.is_first:
            print(json.dumps({"losses": losses, "curve": result.curve}))


sys.exit(run_command(work, continue_with="this"))
"""


def distil(folder: Path, count: int, dies_at: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the program in so many processes; its checkpoint stays in the folder."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
    return subprocess.run(
        [sys.executable, *launcher, str(program), str(folder / f"{count}.pt"), str(dies_at)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=240,
        check=False,
    )


def found(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What the first process has printed."""
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return printed


def test_two_processes_give_the_losses_of_one(tmp_path: Path) -> None:
    """At the same batch, the student's; and its critic, with what it is shown again, is the same."""
    alone, together = found(distil(tmp_path, 1)), found(distil(tmp_path, 2))
    assert len(alone["losses"]) == STEPS
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert [score for _, score in together["curve"]] == pytest.approx([score for _, score in alone["curve"]], rel=1e-4)
    critics = [torch.load(tmp_path / f"{count}.pt", weights_only=True)["modules"]["critic"] for count in (1, 2)]
    for name, tensor in critics[0].items():
        assert torch.allclose(critics[1][name], tensor, rtol=1e-2, atol=2e-3), name
        assert bool((tensor != 0).any())


@pytest.mark.slow
def test_a_killed_process_ends_the_job_which_goes_on_when_started_again(tmp_path: Path) -> None:
    together = found(distil(tmp_path, 2))
    (tmp_path / "2.pt").unlink()
    killed = distil(tmp_path, 2, DIES_AT)
    assert killed.returncode != 0
    lines = [line for line in killed.stderr.splitlines() if line.startswith("error: ")]
    ours = "error: another process of this job has ended: start the job again, it goes on from its last checkpoint"
    assert lines == [ours] or lines == [], "or the launcher was faster"
    resumed = found(distil(tmp_path, 2))
    assert len(resumed["losses"]) == STEPS - DIES_AT // 5 * 5
    assert resumed["losses"] == together["losses"][-len(resumed["losses"]) :]
    assert resumed["curve"] == together["curve"]


def test_samples_are_shared_out_without_rest() -> None:
    items = list(range(7))
    shares = [Processes(rank, 3).share(items) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == items
    assert ALONE.share(items) == items


def test_a_batch_smaller_than_the_processes_is_refused() -> None:
    phases = load_phases("fast")
    phases.check_batches(1)
    with pytest.raises(UserError, match="'frames' has a batch_size of 1, which 2 processes cannot share"):
        phases.check_batches(2)
