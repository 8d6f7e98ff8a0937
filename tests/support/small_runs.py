"""A run and a study to be damaged."""

import sqlite3
from pathlib import Path

from nas.study.settings import RunSettings
from tests.study.test_study import Arithmetic, search

SETTINGS = RunSettings("wan-tiny", None, None, "30ms", "iphone-16-pro", 512, 512, 17, "hybrid", 10, 0)
CONTENTS = {"clip": {"a.mp4": "train 1", "b.mp4": "test 2"}, "weights of teacher": {"wan-tiny": "3"}}


def make_study(folder: Path) -> Path:
    """A study of a few trials in a folder; its database is at rest."""
    folder.mkdir(exist_ok=True)
    search(folder, Arithmetic(), trials=2)
    database = folder / "study.db"
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return database
