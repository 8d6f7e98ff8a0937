"""One HTML file with everything in it: no server, no network, nothing beside it."""

import base64
import gzip
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from nas.machine.files import disk_errors, write_bytes
from nas.report.contents import page_contents
from nas.study.run import Run

if TYPE_CHECKING:
    import optuna

FILE_NAME = "report.html"
"""Name of the page in a run folder."""


def write_report(
    run: Run, path: Path | None = None, models: Path | None = None, study: "optuna.Study | None" = None
) -> Path:
    """Write the page of a run, in one step; returns where it is.

    Args:
        run: the run, which may be worked on.
        path: where the page goes; default `RUN/report.html`.
        models: folder of its finished models; default `RUN/models`.
        study: its study where it is open already; by default it is opened to be read.

    Raises:
        UserError: the run is damaged, or the disk does not take the page.
    """
    path = path or run.folder / FILE_NAME
    page = render(page_contents(run, models or run.folder / "models", study))
    with disk_errors(f"cannot write {path}"):
        write_bytes(path, page.encode(errors="backslashreplace"))  # names of files may be no text
    return path


def render(contents: dict[str, Any]) -> str:
    """The page with these contents (`nas.report.contents.page_contents`)."""
    environment = Environment(
        loader=PackageLoader("nas.report", "assets"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    assets = resources.files("nas.report") / "assets"
    return environment.get_template("page.html").render(
        contents,
        data=_as_script({name: value for name, value in contents.items() if name != "pictures"}),
        style=(assets / "page.css").read_text(),
        script=(assets / "page.js").read_text(),
        plotly=_packed_plotly(),
    )


def _as_script(contents: dict[str, Any]) -> str:
    """JSON that may stand in a script element: nothing in it ends that."""
    return json.dumps(contents, allow_nan=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")


@cache
def _packed_plotly() -> str:
    """plotly.js, compressed: 1.9 MB instead of 4.8 in the page; the browser unpacks it."""
    source = Path(plotly.__file__).with_name("package_data").joinpath("plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(source, 6, mtime=0)).decode()
