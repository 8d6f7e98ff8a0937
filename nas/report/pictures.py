"""Pictures of finished models as they stand in the page itself."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.machine.files import disk_errors
from nas.model.card import PICTURES

_MOST_BYTES = 2_000_000
"""Of all pictures together: with them the page stays under 5 MB."""


def pictures_of_models(folders: Sequence[Path]) -> dict[str, Any]:
    """The strip and the video of each clip that is shown of a model, the first models first, as far as there is room.

    Args:
        folders: of the models.

    Returns:
        `shown`, a list with the index of the model, the name of the clip, and strip and video as addresses that hold
        their data; `left_out`, how many clips had no room.

    Raises:
        UserError: a picture cannot be read.
    """
    shown: list[dict[str, Any]] = []
    left_out, room = 0, _MOST_BYTES
    for index, folder in enumerate(folders):
        for path in sorted((folder / PICTURES).glob("*.png"), reverse=True):  # the worst clip before the median one
            with disk_errors(f"cannot read the pictures of {folder}"):
                strip, video = path.read_bytes(), path.with_suffix(".mp4").read_bytes()
            if len(strip) + len(video) > room:
                left_out += 1
                continue
            room -= len(strip) + len(video)
            clip = {"model": index, "name": path.stem, "strip": _address("image/png", strip)}
            shown.append(clip | {"video": _address("video/mp4", video)})
    return {"shown": shown, "left_out": left_out}


def _address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
