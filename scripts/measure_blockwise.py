"""Whether stages should be trained beforehand against the teacher's features, each by itself.

    OMP_NUM_THREADS=1 python -m scripts.measure_blockwise --decoders 16 --out blockwise.json

Decoders of the benchmark's table with a 3x3 linear shortcut, whose stages visit the grids of the teacher's first three
taps. Between two taps a stage is given the teacher's features and asked for the teacher's features, brought to its
widths by a fixed projection, so that stages fit together when all are trained (blockwise supervision, DNA, arXiv
1911.13053). Such training could be kept for every part and shared by all decoders: here it is as long as a whole
distillation. Then the decoder is distilled as it is, and beside it from fresh weights. Asked is whether early scores
rank decoders better, and whether the errors of the stages do. What is done is kept in --out; the same command goes on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from einops import rearrange
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional

from blocks import Block, TimeContext
from blocks.time_context import to_layout
from nas.benchmark.design import distill_settings, target_settings
from nas.benchmark.table import CurveTable, DecoderRow
from nas.data.make_targets import open_targets
from nas.data.splits import open_clips
from nas.data.targets import TargetBatch, Targets
from nas.distillation.initialise import build, initialise
from nas.distillation.losses import match_taps
from nas.distillation.preparation import training_dtype
from nas.distillation.schedule import learning_rate
from nas.distillation.training_forms import training_forms
from nas.machine.files import read_json, write_json
from nas.metrics import VIDEO_RANGE, psnr
from nas.teachers import load_teacher
from scripts.early_scores import distil, has_wide_shortcut, make_parser
from search_spaces import Decoder, DecoderConfig
from search_spaces.decoder import Stage

TAPS = 3
"""Taps between which stages are trained: the middle block's and the first two up blocks'."""
LOOKED_AT = (20, 40, 100, 200)
"""Steps of the distillation after which decoders are looked at."""
CPU = torch.device("cpu")


def main() -> None:
    """Train what is missing, then print the tables."""
    arguments = make_parser(__doc__, "decoders", 16).parse_args()
    teacher = load_teacher("wan-tiny")
    crops = target_settings(teacher)
    clips = open_clips(None, crops.num_frames)
    targets = open_targets(teacher, clips, crops)
    tapped = open_targets(teacher, clips, replace(crops, taps=teacher.tap_names[:TAPS]))
    rows: list[dict[str, Any]] = read_json(arguments.out) if arguments.out.exists() else []
    for row in choose(tapped, arguments.decoders):
        if any(each["digest"] == row.digest for each in rows):
            continue
        config = DecoderConfig.from_dict(row.architecture)
        fresh, trained = build(config, 0), build(config, 0)
        initialise(trained, tapped.split("train"))
        errors, forced = train_blockwise(trained, tapped, arguments.steps)
        rows.append(
            {
                "digest": row.digest,
                "summary": row.summary,
                "errors": errors,
                "forced_db": forced,
                "fresh": distil(fresh, targets, arguments.steps, arguments.steps),
                "blockwise": distil(trained, targets, arguments.steps, max(LOOKED_AT), fresh=False),
            }
        )
        write_json(arguments.out, rows)
        print(
            f"{rows[-1]['fresh'][-1][1]:.2f} dB, {rows[-1]['blockwise'][-1][1]:.2f} blockwise, {row.summary}",
            flush=True,
        )
    print_tables(rows, arguments.steps)


def choose(targets: Targets, count: int) -> list[DecoderRow]:
    """Decoders with a 3x3 shortcut that visit the grids of all taps, evenly spread over the benchmark's table."""
    rows = CurveTable.load(Path("benchmark/curves.json")).decoders

    def is_wanted(row: DecoderRow) -> bool:
        config = DecoderConfig.from_dict(row.architecture)
        return has_wide_shortcut(config) and len(match_taps(build(config, 0), targets.taps)[0]) == TAPS

    wanted = [row for row in rows if is_wanted(row)]
    return [wanted[index * len(wanted) // count] for index in range(min(count, len(wanted)))]


class Codes:
    """The teacher's features in a student's width: their main components, spread evenly over all channels.

    Args:
        samples: some of the features, `(b, c, t, h, w)`.
        width: channels of the student.
    """

    def __init__(self, samples: Tensor, width: int) -> None:
        rows = rearrange(samples, "b c t h w -> (b t h w) c")
        self.mean, self.std = rows.mean(dim=0), rows.std(dim=0).clamp(min=1e-6)
        _, components = torch.linalg.eigh(torch.corrcoef(rows.T))
        kept = components.T.flip(0)[:width]
        mixed, _ = torch.linalg.qr(torch.randn(width, len(kept), generator=torch.Generator().manual_seed(0)))
        self.projection = mixed @ kept
        self.variance = float(self(samples).var())

    def __call__(self, features: Tensor) -> Tensor:
        """`(b, c, t, h, w)` -> `(b, width, t, h, w)`."""
        normed = (features - self.mean.view(-1, 1, 1, 1)) / self.std.view(-1, 1, 1, 1)
        return torch.einsum("nc,bcthw->bnthw", self.projection, normed)


class Stages:
    """A decoder whose stages between the taps are each given what the teacher has there.

    Args:
        decoder: has its shortcut fitted.
        targets: hold the features of all taps.
    """

    def __init__(self, decoder: Decoder, targets: Targets) -> None:
        self.decoder = decoder
        self.stages, _ = match_taps(decoder, targets.taps)
        train = targets.split("train")
        samples = train.batch(range(0, len(train), 2)).features
        self.codes = {tap: Codes(samples[tap], decoder.stage_channels(stage)) for tap, stage in self.stages.items()}

    def run(self, batch: TargetBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Frames that the head makes of the teacher's features, and the error of each stage, 1 if it knows nothing."""
        errors: dict[str, Tensor] = {}
        with self._forced(batch, errors):
            frames = self.decoder(batch.latents)
        return frames.float(), errors

    @contextmanager
    def _forced(self, batch: TargetBatch, errors: dict[str, Tensor]) -> Iterator[None]:
        hooks = []
        for tap, stage in self.stages.items():
            module = self.decoder.stages[stage]
            assert isinstance(module, Stage)
            last = module.parts[-1]
            assert isinstance(last, Block)
            code, variance = self.codes[tap](batch.features[tap]), self.codes[tap].variance

            def judge(
                part: Block,
                inputs: tuple[Tensor, TimeContext],
                out: Tensor,
                tap: str = tap,
                code: Tensor = code,
                variance: float = variance,
            ) -> Tensor:
                time = inputs[1]
                mine = to_layout(out, part.output_layout, "video", time)
                errors[tap] = functional.mse_loss(mine.float(), code) / variance
                return to_layout(code, "video", part.output_layout, time).to(out.dtype)

            hooks.append(last.register_forward_hook(judge))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def train_blockwise(decoder: Decoder, targets: Targets, steps: int) -> tuple[dict[str, float], float]:
    """Train all stages at once, each by itself; their errors on held-out clips, and the PSNR of the head's frames."""
    stages, settings = Stages(decoder, targets), distill_settings(steps)
    assert decoder.shortcut is not None
    fitted = {id(parameter) for parameter in decoder.shortcut.parameters()}
    learning = [parameter for parameter in decoder.parameters() if id(parameter) not in fitted]
    optimizer = torch.optim.AdamW(learning, betas=settings.betas, weight_decay=settings.weight_decay)
    train, dtype = targets.split("train"), training_dtype("auto", CPU)
    decoder.train()
    for step in range(steps):
        rate = learning_rate(step, steps, settings.learning_rate, settings.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = train.batch(train.order(step, settings.batch_size, settings.seed))
        with training_forms(decoder, CPU), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            frames, errors = stages.run(batch)
        optimizer.zero_grad()
        loss = torch.stack([functional.l1_loss(frames, batch.frames), *errors.values()]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return judge_blockwise(stages, targets)


@torch.no_grad()
def judge_blockwise(stages: Stages, targets: Targets) -> tuple[dict[str, float], float]:
    """Mean errors of the stages over the samples to score on, and the PSNR in dB of the head's frames."""
    split = targets.split("score")
    found, decibels = [], []
    for index in range(len(split)):
        batch = split.batch([index])
        frames, errors = stages.run(batch)
        found.append({tap: float(error) for tap, error in errors.items()})
        decibels += psnr(frames.clamp(-1, 1), batch.frames.clamp(-1, 1), VIDEO_RANGE).tolist()
    return {tap: fmean(each[tap] for each in found) for tap in found[0]}, fmean(decibels)


def print_tables(rows: list[dict[str, Any]], steps: int) -> None:
    """Early scores, and what ranks decoders by the final score from fresh weights."""
    final = [row["fresh"][-1][1] for row in rows]
    print(
        f"{len(rows)} decoders; Spearman with the score after {steps} steps from fresh weights, {fmean(final):.2f} dB"
    )
    print("| after | dB | Spearman | dB, stages trained before | Spearman |\n|---|---|---|---|---|")
    for step in LOOKED_AT:
        cells = []
        for kind in ("fresh", "blockwise"):
            early = [dict(map(tuple, row[kind]))[step] for row in rows]
            cells += [fmean(early), spearmanr(early, final)[0]]
        print(f"| {step} steps | {' | '.join(f'{cell:.2f}' for cell in cells)} |")
    ranked = {tap: [-row["errors"][tap] for row in rows] for tap in rows[0]["errors"]}
    ranked |= {"sum of the errors": [-sum(row["errors"].values()) for row in rows]}
    ranked |= {"frames of the head": [row["forced_db"] for row in rows]}
    print("| stage up to | mean | Spearman |\n|---|---|---|")
    for name, values in ranked.items():
        print(f"| {name} | {abs(fmean(values)):.2f} | {spearmanr(values, final)[0]:.2f} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
