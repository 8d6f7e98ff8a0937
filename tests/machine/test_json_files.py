"""JSON files: what was written is read again, and what is none is said."""

from pathlib import Path

from nas.data.settings import TargetSettings
from nas.machine.files import read_json, write_json
from tests.support.errors import refusal

SETTINGS = TargetSettings(crop=16, num_frames=5, train_crops=2, score_crops=1, test_crops=1, taps=())
NUM_VIDEOS = 6
"""4 to train on, 1 to score on, 1 to test on."""
NUM_CROPS = 10
CROP_BYTES = 4 * 16 * 8 + (2 + 1) * 3 * 5 * 256


def test_json_round_trip_and_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"b": [1, 2.5, None], "a": "x"})
    assert read_json(path) == {"b": [1, 2.5, None], "a": "x"}
    assert path.read_text().endswith("}\n")
    for content in (b"", b'{"a": ', b"\xff\xfe{}"):
        path.write_bytes(content)
        assert f"{path} is not valid JSON" in refusal(lambda: read_json(path))
