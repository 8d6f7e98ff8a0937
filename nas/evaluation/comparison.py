"""Teacher, baselines and students side by side."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from nas.evaluation.results import Evaluation
from nas.latency import LatencyRecord
from nas.terminal.console import format_count


@dataclass(frozen=True)
class Row:
    """One decoder in the comparison."""

    name: str
    """Name of the decoder, for the first column."""
    evaluation: Evaluation
    """Quality of the decoder's frames."""
    parameters: int | None = None
    """Number of parameters; None leaves the column empty."""
    macs_per_frame: float | None = None
    """Multiply-accumulate operations per decoded frame; None leaves the column empty."""
    measured: LatencyRecord | None = None
    """Latency measured on this machine; None leaves the column empty."""
    predicted: LatencyRecord | None = None
    """Latency predicted for a phone; None leaves the column empty."""


def print_comparison(console: Console, rows: list[Row]) -> None:
    """Print a table; every latency says whether it was measured or predicted, and on what."""
    measured = next((row.measured for row in rows if row.measured), None)
    predicted = next((row.predicted for row in rows if row.predicted), None)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("decoder", overflow="fold")
    phone = predicted.device if predicted else "predicted"
    titles = ("params", "GMACs\n/frame", "ms/frame\nhere", f"ms/frame\n{phone}*")
    for title in (*titles, "dB / SSIM\nto teacher", "dB / SSIM\nto video"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            "" if row.parameters is None else format_count(row.parameters),
            "" if row.macs_per_frame is None else f"{row.macs_per_frame / 1e9:.1f}",
            "" if row.measured is None else f"{row.measured.ms_per_frame:.1f}",
            "" if row.predicted is None else f"{row.predicted.ms_per_frame:.1f}",
            _quality(row.evaluation.psnr_teacher, row.evaluation.ssim_teacher),
            _quality(row.evaluation.psnr_truth, row.evaluation.ssim_truth),
        )
    console.print()
    console.print(table)
    if measured is not None:
        console.print(f"here: {measured.describe()}", style="dim", soft_wrap=True)
    if predicted is not None:
        console.print(f"*: {predicted.describe()}", style="dim", soft_wrap=True)


def _quality(psnr: float | None, ssim: float | None) -> str:
    return "" if psnr is None or ssim is None else f"{psnr:.2f} / {ssim:.4f}"
