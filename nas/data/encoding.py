"""A video of any length into the latents of a teacher, piece by piece where the teacher can."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from torch import Tensor

from nas.data.clips import to_video
from nas.data.pictures import NoPictureError, choose_stream, to_rgb
from nas.data.video_file import open_video, pictures
from nas.machine.reading import reading
from nas.teachers import Teacher
from nas.terminal.errors import UserError

_DEFAULT_RATE = Fraction(24)
"""Frames per second of a video that does not say."""


class EncodedVideo:
    """The frames of a video file, and their latents as they are asked for.

    Frames are uint8 RGB, upright, their short side at most 720, cropped to the grid of the latents around the middle.

    Raises:
        UserError: the file holds no video, or one that is smaller than a latent.
    """

    def __init__(self, path: Path, teacher: Teacher) -> None:
        self.path = path
        self.streams = teacher.streams
        """Whether it is encoded piece by piece."""
        self.left_out = 0
        """Frames at the end that make no whole latent; known at the end."""
        self._teacher = teacher
        self._spec = teacher.spec
        expected = "expected a video"
        with reading(path, expected):
            path.open("rb").close()
        try:
            with open_video(path) as container:
                stream = choose_stream(container)
                self.rate = Fraction(stream.average_rate or _DEFAULT_RATE)
                """Frames per second."""
                self.expected_frames = int(stream.frames or float(container.duration or 0) / 1e6 * self.rate)
                """How many frames there are, as far as the file says; 0 if it does not."""
            height, width = next(self._frames()).shape[:2]
        except (NoPictureError, StopIteration, OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read as a video ({error or 'it has no picture'}): {expected}") from error
        spatial = self._spec.spatial
        self.height, self.width = height // spatial * spatial, width // spatial * spatial
        if not (self.height and self.width):
            raise UserError(f"{path} has pictures of {height}x{width}: expected at least {spatial} pixels a side")

    def pieces(self) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Frames `(t, h, w, 3)` and their latents `(1, c, t', h', w')`: of one latent at a time, or all at once.

        Raises:
            UserError: the video is damaged, or too short for a latent.
        """
        spec = self._spec
        state, waiting, encoded = None, list[np.ndarray](), 0
        try:
            for frame in self._frames():
                waiting.append(frame)
                if self.streams and len(waiting) == (spec.temporal if encoded else spec.num_frames(1)):
                    frames = np.stack(waiting)
                    latents, state = self._teacher.encode_chunk(to_video(frames), state)
                    encoded, waiting = encoded + len(frames), []
                    yield frames, latents
        except NoPictureError as error:
            raise UserError(
                f"{self.path} {error} after {encoded + len(waiting)} frames: restore it, or cut it before"
            ) from error
        if not self.streams:
            frames = np.stack(waiting[: self._longest(len(waiting))])
            encoded, waiting = len(frames), waiting[len(frames) :]
            yield frames, self._teacher.encode(to_video(frames))
        elif not encoded:
            self._longest(len(waiting))
        self.left_out = len(waiting)

    def _longest(self, count: int) -> int:
        """The largest number of frames up to `count` that the teacher encodes."""
        least = self._spec.num_frames(self._teacher.least_latents)
        if count < least:
            raise UserError(f"{self.path} has {count} frames: {self._teacher.name} encodes {least} at least")
        return self._spec.largest_clip(count)

    def _frames(self) -> Iterator[np.ndarray]:
        for *_, frame, display in pictures(self.path):
            pixels = to_rgb(frame, display)
            height, width = (side // self._spec.spatial * self._spec.spatial for side in pixels.shape[:2])
            top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
            yield pixels[top : top + height, left : left + width] if height and width else pixels
