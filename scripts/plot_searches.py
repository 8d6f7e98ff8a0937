"""Draw how the fronts of searches grow with time: mean over searches, with the range in which they lie.

python -m nas.benchmark search --out benchmark/searches.json
python -m scripts.plot_searches benchmark/searches.json --out docs/pictures/searches.svg
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes

from nas.benchmark.fronts import Scored, growth
from nas.latency.budget import parse_budget
from nas.machine.files import read_json


def main() -> None:
    """Read the comparison and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("searches", type=Path, nargs="+", metavar="FILE", help="what nas.benchmark search has written")
    parser.add_argument("--floor", type=float, default=28.0, metavar="DB", help="score that counts as nothing")
    parser.add_argument("--out", type=Path, required=True, metavar="SVG", help="the picture")
    arguments = parser.parse_args()
    # Text stays text: the file is small, and its letters are those of the reader.
    matplotlib.rcParams |= {"svg.fonttype": "none", "font.size": 10, "svg.hashsalt": "searches"}
    figure, axes = pyplot.subplots(
        1, len(arguments.searches), figsize=(4.5 * len(arguments.searches), 3.4), squeeze=False
    )
    for axis, file in zip(axes[0], arguments.searches, strict=True):
        draw(axis, read_json(file), arguments.floor)
    figure.tight_layout()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, metadata={"Date": None})


def draw(axis: Axes, found: dict[str, Any], floor_db: float) -> None:
    """One comparison."""
    limit_ms = parse_budget(found["budget"])
    by_arm: dict[str, list[list[Scored]]] = {}
    for row in found["rows"]:
        if row["history"]:
            by_arm.setdefault(row["arm"], []).append(row["history"])
    end = max(each[0] for several in by_arm.values() for history in several for each in history)
    seconds = np.linspace(0, end, 200)
    for arm, several in by_arm.items():
        curves = np.array([growth(history, limit_ms, floor_db, seconds) for history in several])
        (line,) = axis.plot(seconds / 60, curves.mean(axis=0), label=arm)
        axis.fill_between(seconds / 60, curves.min(axis=0), curves.max(axis=0), alpha=0.15, color=line.get_color())
    axis.set_title(f"budget {found['budget']} per frame")
    axis.set_xlabel("minutes of a search")
    axis.set_ylabel(f"hypervolume over {floor_db:g} dB, in dB")
    axis.legend(loc="lower right")
    axis.grid(alpha=0.3)


if __name__ == "__main__":
    main()
