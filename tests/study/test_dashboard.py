"""Optuna's dashboard on a study, as the page about searches tells to open it: it shows all and can change nothing."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from nas.study.outcomes import read_outcomes
from nas.study.study import load_study
from tests.support.small_runs import make_study

pytest.importorskip("optuna_dashboard")


def ask(address: str, method: str = "GET") -> Any:
    with urllib.request.urlopen(urllib.request.Request(address, method=method), timeout=20) as answer:
        return json.load(answer)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def test_it_shows_the_study_and_cannot_delete_it(tmp_path: Path) -> None:
    database = make_study(tmp_path / "R")
    address, port = f"sqlite:///file:{database}?mode=ro&uri=true", free_port()
    code = "from optuna_dashboard._cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "--port", str(port), address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            studies, deadline = None, time.monotonic() + 60
            while studies is None:
                try:
                    studies = ask(f"http://127.0.0.1:{port}/api/studies")["study_summaries"]
                except urllib.error.URLError:
                    assert process.poll() is None and time.monotonic() < deadline
                    time.sleep(0.2)
            assert [study["study_name"] for study in studies] == ["search"]
            number = studies[0]["study_id"]
            outcomes = read_outcomes(load_study(f"sqlite:///{database}"))
            shown = ask(f"http://127.0.0.1:{port}/api/studies/{number}")["trials"]
            assert len([trial for trial in shown if trial["state"] in ("Complete", "Pruned")]) == len(outcomes)
            with pytest.raises(urllib.error.HTTPError, match="500"):
                ask(f"http://127.0.0.1:{port}/api/studies/{number}", "DELETE")
            assert read_outcomes(load_study(f"sqlite:///{database}")) == outcomes
        finally:
            process.kill()
