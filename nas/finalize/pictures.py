"""Pictures of a finished model: the clip on which it is furthest from its teacher, and the one in the middle."""

import torch

from nas.data.targets import Targets
from nas.evaluation.pictures import difference, side_by_side, strip
from nas.evaluation.results import Evaluation
from search_spaces import Decoder


@torch.inference_mode()
def pictures_of(decoder: Decoder, unseen: Targets, evaluation: Evaluation, device: torch.device) -> dict[str, bytes]:
    """A strip and a video of each of the two clips, by file name: the video, the teacher, the student, the difference.

    Of a clip its first sample is shown, which is central and begins with the first frame.

    Args:
        decoder: the student.
        unseen: what it was judged on.
        evaluation: what was found.
        device: where it decodes.
    """
    samples = unseen.split(evaluation.split)
    found: dict[str, bytes] = {}
    for which, clip in _shown(evaluation).items():
        batch = samples.batch([samples.clip_names.index(clip)], device)
        rows = [batch.truth, batch.frames, decoder(batch.latents)]
        rows = [each.float().clamp(-1, 1).cpu() for each in rows]
        rows.append(difference(rows[2], rows[1]))
        found[f"{which}.png"], found[f"{which}.mp4"] = strip(rows), side_by_side(rows)
    return found


def _shown(evaluation: Evaluation) -> dict[str, str]:
    """Names of the clips by what they are shown as."""
    clips = [(each.to_teacher.psnr, each.name) for each in evaluation.clips if each.to_teacher is not None]
    order = [name for _, name in sorted(clips)]
    return {"worst": order[0]} | ({"median": order[len(order) // 2]} if len(order) > 1 else {})
