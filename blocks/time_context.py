"""The one place that knows about time: padding, the previous frame, the first frame, and streaming state.

Axis letters: b batch, c channels, t frames, h height, w width. Features are `(b, c, t, h, w)` ("video" layout) or
`(b t, c, h, w)` ("frames" layout, t fastest).
"""

from typing import Literal

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

TemporalMode = Literal["causal", "bidirectional"]
"""`causal`: no frame depends on a later one, so a decoder can stream. `bidirectional`: frames see both sides."""
State = tuple[Tensor, ...]
"""What a stream carries from chunk to chunk: past frames, in the order in which the parts ask for them."""
Layout = Literal["video", "frames"]
"""`video` is `(b, c, t, h, w)`, `frames` is `(b t, c, h, w)`: 4-D, frame by frame, what phones like best."""


def time_padding(kernel_size: int, mode: TemporalMode) -> tuple[int, int]:
    """Frames before and after the current one that a convolution in time sees."""
    extra = kernel_size - 1
    before = extra if mode == "causal" else extra // 2
    return before, extra - before


class TimeContext:
    """One pass of a decoder over a clip or over a chunk of a stream.

    In causal mode the frames before the first are zeros, so that the first chunk of a stream runs like all others.
    In bidirectional mode the first and the last frame are repeated (as in Turbo-VAED, arXiv 2508.09136).

    A stream keeps its past outside of the model: pass the state that the chunk before returned (`None` to start), run
    the blocks, then take `new_state`. The tensors stand in the order in which the blocks asked for their past.

    Args:
        batch: clips in the batch (what b is, for the frames layout).
        mode: "causal" or "bidirectional".
        drop_leading: the first latent frame of the clip becomes one frame, so upsamplers in time drop its first ones.
        at_end: not the upsamplers but `trim` drops them.
        streaming: keep the past for the next chunk.
        state: the past that the chunk before left; None at the start of a clip.
    """

    def __init__(
        self,
        batch: int,
        mode: TemporalMode,
        *,
        drop_leading: bool,
        at_end: bool = False,
        streaming: bool = False,
        state: State | None = None,
    ) -> None:
        if (streaming or state is not None) and mode != "causal":
            raise ValueError(f"only a causal decoder streams, but the temporal mode is '{mode}'")
        self.batch = batch
        self.mode = mode
        self._first_chunk = state is None
        drop_leading = drop_leading and self._first_chunk
        self._drop_leading, self._trims = drop_leading and not at_end, drop_leading and at_end
        self._streaming = streaming
        self._past = list(state or ())
        self._future: list[Tensor] = []

    @property
    def new_state(self) -> State:
        """The past that the next chunk needs."""
        if self._past:
            raise ValueError(f"{len(self._past)} state tensors were not used: the state is of another decoder")
        return tuple(self._future)

    def pad(self, x: Tensor, kernel_size: int) -> Tensor:
        """`(b, c, t, h, w)` -> `(b, c, t + kernel_size - 1, h, w)`: the frames that a convolution needs around."""
        extra = kernel_size - 1
        if extra == 0:
            return x
        if self.mode == "causal":
            return self._with_past(x, extra, dim=2)
        first, last = x[:, :, :1], x[:, :, -1:]
        before, after = time_padding(kernel_size, self.mode)
        return torch.cat([first] * before + [x] + [last] * after, dim=2)

    def previous(self, x: Tensor) -> Tensor:
        """For every frame of `(b t, c, h, w)` the frame before it, same shape.

        Before the first frame: zeros when causal, the first frame itself when bidirectional.
        """
        if self.batch == 1:  # stays 4-D: a program for a phone has no reshape here
            return self._shift(x, dim=0)
        clips = rearrange(x, "(b t) c h w -> b t c h w", b=self.batch)
        return rearrange(self._shift(clips, dim=1), "b t c h w -> (b t) c h w")

    @property
    def drops_leading(self) -> bool:
        """Whether this pass begins with the latent frame that becomes one frame."""
        return self._drop_leading

    def first(self, x: Tensor) -> Tensor:
        """The first frame of each clip: `(b t, c, h, w)` -> `(b, c, h, w)`."""
        return x[:1] if self.batch == 1 else rearrange(x, "(b t) c h w -> b t c h w", b=self.batch)[:, 0]

    def put_first(self, first: Tensor, x: Tensor) -> Tensor:
        """`(b, c, h, w)` in front of each clip of `(b t, c, h, w)`: `(b (1 + t), c, h, w)`."""
        if self.batch == 1:
            return torch.cat([first, x])
        clips = torch.cat([first[:, None], rearrange(x, "(b t) c h w -> b t c h w", b=self.batch)], dim=1)
        return rearrange(clips, "b t c h w -> (b t) c h w")

    def drop_leading(self, x: Tensor, count: int) -> Tensor:
        """`(b t, c, h, w)` without the first `count` frames of each clip, where the frame rule drops them.

        An upsampler that makes s frames of one calls this with s - 1.
        """
        if count == 0 or not self._drop_leading:
            return x
        if self.batch == 1:
            return x[count:]
        clips = rearrange(x, "(b t) c h w -> b t c h w", b=self.batch)
        return rearrange(clips[:, count:], "b t c h w -> (b t) c h w")

    def drop_leading_video(self, x: Tensor, count: int) -> Tensor:
        """`drop_leading` for `(b, c, t, h, w)`."""
        return x[:, :, count:] if count and self._drop_leading else x

    def trim(self, x: Tensor, count: int) -> Tensor:
        """`(b, c, t, h, w)` without its first `count` frames where frames are dropped at the end of the decoder."""
        return x[:, :, count:] if self._trims else x

    def _shift(self, x: Tensor, dim: int) -> Tensor:
        frames = x.shape[dim]
        if self.mode == "causal":
            return self._with_past(x, 1, dim).narrow(dim, 0, frames)
        return torch.cat([x.narrow(dim, 0, 1), x.narrow(dim, 0, frames - 1)], dim=dim)

    def _with_past(self, x: Tensor, frames: int, dim: int) -> Tensor:
        """`x` with the `frames` frames before it in front."""
        if self._first_chunk:
            zeros = [0, 0] * (x.ndim - 1 - dim) + [frames, 0]
            longer = functional.pad(x, zeros)
        else:
            if not self._past:
                raise ValueError("the state has too few tensors: it is of another decoder")
            longer = torch.cat([self._past.pop(0), x], dim=dim)
        if self._streaming:
            # A copy: a view would keep all frames of the chunk alive until the next one.
            self._future.append(longer.narrow(dim, longer.shape[dim] - frames, frames).detach().clone())
        return longer


def to_frames(x: Tensor) -> Tensor:
    """`(b, c, t, h, w)` -> `(b t, c, h, w)`."""
    return rearrange(x, "b c t h w -> (b t) c h w")


def to_video(x: Tensor, time: TimeContext) -> Tensor:
    """`(b t, c, h, w)` -> `(b, c, t, h, w)`."""
    return rearrange(x, "(b t) c h w -> b c t h w", b=time.batch)


def to_layout(x: Tensor, layout: Layout, wanted: Layout, time: TimeContext) -> Tensor:
    """`x` in the layout that is wanted; nothing moves where it already is."""
    if layout == wanted:
        return x
    return to_frames(x) if wanted == "frames" else to_video(x, time)


def channels_to_frames(x: Tensor, steps: int) -> Tensor:
    """`(n, steps c, h, w)` -> `(n steps, c, h, w)`: each group of c channels becomes a frame.

    Nothing moves in memory, and no tensor has a fifth axis, which a rearrangement of named axes would give it.
    """
    return x.reshape(-1, x.shape[1] // steps, *x.shape[2:])
