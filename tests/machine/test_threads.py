"""Threads that wait sleep in the commands that compute for long, and nowhere else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_SCRIPT = """
import os, sys
import nas.search
assert "torch" not in sys.modules, "the policy is read when PyTorch is imported"
nas.search.main(["--status", "nowhere"])
from nas.machine.threads import user_environment
print(os.environ["OMP_WAIT_POLICY"], user_environment().get("OMP_WAIT_POLICY"))
"""


@pytest.mark.parametrize(("given", "said"), [({}, "PASSIVE None"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE ACTIVE")])
def test_a_search_lets_threads_sleep_and_measures_as_the_user_says(given: dict[str, str], said: str) -> None:
    others = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", _SCRIPT], cwd=ROOT, env=others | given, capture_output=True, text=True)
    assert done.stdout.strip() == said, done.stderr
