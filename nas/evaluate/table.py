"""The numbers of an evaluation for people: everybody in a column, a line for every measure, intervals in brackets."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from nas.evaluate.outcome import Outcome
from nas.evaluation.confidence import LEVEL, Interval
from nas.evaluation.results import SPANS
from nas.evaluation.summary import MEASURES, differences, intervals, relative_flicker, span_name

_LONGEST = 20
"""Clips that are listed one by one."""

_TITLES = {
    "psnr": "PSNR, dB",
    "psnr_first": "  first frame",
    "psnr_rest": "  the others",
    **{span_name(index): f"  frames {first}-{last or '...'}" for index, (first, last) in enumerate(SPANS)},
    "ssim": "SSIM",
    "lpips": "LPIPS, AlexNet",
    "lpips_vgg": "LPIPS, VGG16",
    "sharpness": "sharpness (1: as sharp)",
    "detail_error": "detail error (0: none)",
    "colour_mean": "mean drift, 8-bit steps",
    "colour_std": "std drift, 8-bit steps",
    "delta_e": "Delta E 2000",
    "flicker": "flicker, 8-bit steps",
    "stuck_frames": "share of stuck frames",
    "tile_seams": "tile seams (1: none)",
    "chunk_seams": "chunk seams (1: none)",
}
"""Measure -> the beginning of its line."""


def print_outcome(console: Console, outcome: Outcome) -> None:
    """Two tables of means over clips, one of the clips, and what was not measured."""
    names = [student.name for student in outcome.who.students]
    _print_means(console, outcome, names, "to the teacher")
    if outcome.to_truth(None)[0] is not None:
        _print_means(console, outcome, names, "to the video")
    _print_clips(console, outcome, names)
    console.print(_about(len(outcome.verdicts)), style="dim", soft_wrap=True)
    for line in outcome.not_measured():
        console.print(f"not measured: {line}", style="dim", soft_wrap=True)


def _print_means(console: Console, outcome: Outcome, names: Sequence[str], against: str) -> None:
    to_teacher = against == "to the teacher"
    of = outcome.to_teacher if to_teacher else outcome.to_truth
    qualities = [of(index) for index in range(len(names))]
    columns = {name: intervals(each) for name, each in zip(names, qualities, strict=True)}
    if not to_teacher:
        columns = {f"teacher {outcome.who.teacher.name}": intervals(outcome.to_truth(None)), **columns}
    for name, each in zip(names[1:], qualities[1:], strict=True):
        columns[f"{name} - {names[0]}"] = differences(each, qualities[0])
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(against)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for measure in MEASURES:
        if any(measure in column for column in columns.values()) and _worth_a_line(measure, columns):
            table.add_row(_TITLES[measure], *(_text(column.get(measure)) for column in columns.values()))
    if not to_teacher:
        relative = [relative_flicker(outcome.column(index), outcome.column(None)) for index in range(len(names))]
        rest = [""] * (len(columns) - len(names) - 1)
        table.add_row("flicker over the teacher's", "", *map(_text, relative), *rest)
        distances = [outcome.rfvd(index) for index in (None, *range(len(names)))]
        if distances[0] is not None:
            title = f"rFVD of {distances[0]['clips']} clips"
            table.add_row(title, *(f"{each['value']:.2f}" if each else "" for each in distances), *rest)
    console.print()
    console.print(table)


def _about(clips: int) -> str:
    """What the numbers are of, and what the brackets are."""
    if clips == 1:
        return "of one clip, which says nothing of others: there is no interval"
    few = "; of fewer than 10 clips they are a hint at most" if clips < 10 else ""
    return f"means over {clips} clips; in brackets {LEVEL:.0%} bootstrap intervals over clips{few}"


def _worth_a_line(measure: str, columns: dict[str, dict[str, Interval]]) -> bool:
    """Parts of a decode say nothing where no clip is longer than the first of them."""
    return not measure.startswith("psnr_1_") or any(span_name(1) in column for column in columns.values())


def _print_clips(console: Console, outcome: Outcome, names: Sequence[str]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("PSNR to the teacher, dB", overflow="fold")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    shown = outcome.verdicts[:_LONGEST]
    for verdict in shown:
        decibels = (f"{clip.to_teacher.psnr:.2f}" if clip.to_teacher else "" for clip in verdict.students)
        table.add_row(verdict.teacher.name, *decibels)
    console.print()
    console.print(table)
    if len(outcome.verdicts) > len(shown):
        console.print(f"and {len(outcome.verdicts) - len(shown)} more in evaluation.json", style="dim")
    console.print()


def _text(found: Interval | None) -> str:
    if found is None:
        return ""
    digits = 2 if abs(found.mean) >= 2 else 4
    mean = f"{found.mean:.{digits}f}"
    return mean if found.low is None else f"{mean} [{found.low:.{digits}f}, {found.high:.{digits}f}]"
