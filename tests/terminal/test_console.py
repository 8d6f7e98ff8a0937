"""What a person sees: a table of trials, a comparison, progress; on a terminal and off it."""

import contextlib
import io
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from nas.evaluation.comparison import Row, print_comparison
from nas.evaluation.results import Evaluation, Quality
from nas.study.limits import StudyLimits
from nas.study.outcomes import Outcome
from nas.study.rows import mark, print_front
from nas.study.table import TrialTable
from nas.terminal.console import (
    StatusLine,
    format_bytes,
    format_count,
    format_seconds,
    make_console,
    progress,
    say,
    warn,
)
from tests.support.records import latency
from tests.support.small_targets import CONFIG, OTHER_CONFIG

ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
LONG = replace(CONFIG, stages=(CONFIG.stages[0],) * 9 + CONFIG.stages[1:])
"""Its summary is about as long as the longest of the search spaces."""


@pytest.fixture(autouse=True)
def _without_wishes_for_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def plain_console() -> Console:
    """What commands print to where standard output is a file or a pipe."""
    with contextlib.redirect_stdout(io.StringIO()):
        console = make_console()
    console.file = io.StringIO()
    return console


def terminal(width: int = 100) -> Console:
    return Console(highlight=False, width=width, file=io.StringIO(), force_terminal=True, _environ={})


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def lines_of(console: Console) -> list[str]:
    """As they stand on the screen, without colours."""
    return ANSI.sub("", text_of(console)).replace("\r", "\n").splitlines()


def outcome(
    number: int, status: str = "scored", score: float | None = 25.0, ms: float = 20.0, **more: object
) -> Outcome:
    facts = {"config": CONFIG, "latency": latency(ms), "parameters": 1_234_567, **more}
    return Outcome(number=number, status=status, score=score, **facts)  # type: ignore[arg-type]


EVERY_STATUS = [
    outcome(0, "over budget", None, 941.2, preset="turbo_vaed_hunyuan", config=LONG, parameters=40_700_000),
    outcome(1, "scored", 26.44, preset="turbo_vaed_hunyuan x 1/4"),
    outcome(2, "over budget", None, 50.0, config=OTHER_CONFIG),
    outcome(3, "scored", 27.1, 21.7, parameters=950),
    outcome(4, "pruned", 22.04),
    outcome(5, "same", 27.1, detail="as #3"),
    outcome(6, "failed", None, detail="the loss is nan at step 3: lower the learning rate"),
    outcome(7, "scored", 24.0, latency=latency(12345.6, "measured")),
]


class Shown(StatusLine):
    """A status line that remembers what it showed."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.texts: list[str] = []

    def show(self, text: str) -> None:
        """Replace the line."""
        self.texts.append(text)
        super().show(text)


def fill(console: Console, outcomes: list[Outcome] = EVERY_STATUS, trials: int = 10) -> list[str]:
    """Print a table with these rows; what the status line showed."""
    status = Shown(console)
    with status:
        table = TrialTable(console, StudyLimits(trials), status, trained=0)
        table.header()
        for each in outcomes:
            table.add(each)
    return status.texts


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let time pass for everybody who asks for it."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_off_a_terminal_rows_are_plain_lines() -> None:
    console = plain_console()
    fill(console)
    assert "\x1b" not in text_of(console) and "\r" not in text_of(console)
    lines = lines_of(console)
    assert "".join(line.split()[0] for line in lines) == "#013467"
    column = lines[0].index("dB vs teacher")
    verdicts = ["over budget, not trained", "26.44", "27.10", "stopped early (22.04)"]
    assert [line[column:] for line in lines[1:5]] == verdicts and lines[5][column:].startswith("failed the loss is nan")


@pytest.mark.parametrize("width", [80, 100, 200])
def test_on_a_terminal_no_row_is_wider_than_it(width: int) -> None:
    console = terminal(width)
    fill(console)
    assert max(len(line) for line in lines_of(console)) <= width


def test_rows_name_the_architecture_and_star_what_is_predicted() -> None:
    """A name that is too long is cut where everybody sees it; brackets are text, not markup."""
    console = terminal(100)
    fill(console, [*EVERY_STATUS, outcome(8, "failed", None, detail="[red]odd[/] [1]")])
    rows = {line.split()[0]: line for line in lines_of(console) if line}
    assert rows["0"].startswith("  0  turbo_vaed_hunyuan: mem2d 16x1 > ") and ".. " in rows["0"]
    assert "turbo_vaed_hunyuan x 1/4: mem2d" in rows["1"]
    assert CONFIG.summary() in rows["3"] and " 21.7* " in rows["3"]
    assert " 12345.6 " in rows["7"]
    assert rows["8"].endswith("failed [red]odd[/] [1]")
    assert [mark(outcome(0)), mark(outcome(0, latency=latency(1.0, "measured")))] == ["*", ""]


def test_every_new_best_is_green_and_nothing_else() -> None:
    console = terminal()
    fill(console)
    green = [ANSI.sub("", line).split()[0] for line in text_of(console).splitlines() if "\x1b[32m" in line]
    assert green == ["1", "3"]


def test_proposals_over_budget_are_counted_and_only_published_ones_have_a_row() -> None:
    texts = fill(terminal(), [outcome(number, "over budget", None, 50.0) for number in range(3)])
    assert texts[-1].split("   ") == ["0 of 10 trained", "3 over budget"]
    console = plain_console()
    fill(console, EVERY_STATUS[:2])
    fill(console, [outcome(7, "over budget", None, 50.0)])
    assert sum("over budget" in line for line in lines_of(console)) == 1


def test_the_status_line_says_the_best_and_how_far_it_is() -> None:
    parts = fill(terminal(), EVERY_STATUS, trials=20)[-1].split("   ")
    counts = ["5 of 20 trained", "2 over budget", "1 proposed before"]
    assert parts[:4] == ["best #3  21.7 ms/frame*  27.10 dB", *counts]
    assert re.fullmatch(r"\d+ s left", parts[4])


def test_the_time_left_is_worked_out_from_this_process(wait: Callable[[float], None]) -> None:
    """What was trained before is counted, but how long it took is not known."""
    status = Shown(plain_console())
    table = TrialTable(plain_console(), StudyLimits(10), status, trained=6)
    table.replay(outcome(0))
    wait(10)
    table.progress({6: 20, 7: 0}, 60)
    assert status.texts[-1].endswith("6 of 10 trained   training #6 (20/60 steps), #7 (0/60 steps)")
    wait(10)
    table.add(outcome(6))
    assert status.texts[-1].endswith("7 of 10 trained   60 s left")


def test_a_time_limit_bounds_the_time_left(wait: Callable[[float], None]) -> None:
    status = Shown(plain_console())
    table = TrialTable(plain_console(), StudyLimits(10, seconds=42.0), status, trained=0)
    for seconds, left in ((12, "   30 s left"), (100, "   0 s left")):
        wait(seconds)
        table.add(outcome(0))
        assert status.texts[-1].endswith(left)


def test_a_status_line_never_wraps_and_leaves_nothing_behind() -> None:
    console = terminal(60)
    with StatusLine(console) as status:
        status.show("x" * 500)
    assert max(len(line) for line in lines_of(console)) <= 60
    assert text_of(console).rindex("\x1b[2K") > text_of(console).rindex("x")
    with StatusLine(plain := plain_console()) as status:
        status.show("x")
    assert text_of(plain) == ""


def test_the_front_has_a_row_for_each_decoder_with_marks() -> None:
    """Fastest first, without what is slower and worse."""
    found = [outcome(0, score=25.2, ms=11.3), outcome(1, score=27.4, latency=latency(28.9, "measured"))]
    others = [outcome(2, score=25.0, ms=12.0), outcome(3, "pruned", 30.0, 1.0)]
    console = plain_console()
    print_front(console, found + others)
    title, header, *rows = (line.split() for line in lines_of(console))
    assert title[:3] == ["front", "2", "decoders"] and header[0] == "#"
    assert [(row[0], row[-4], row[-1]) for row in rows] == [("0", "11.3*", "25.20"), ("1", "28.9", "27.40")]


def test_what_differs_by_less_than_seeds_do_is_said_to_say_nothing() -> None:
    console = plain_console()
    print_front(console, [outcome(0, score=25.2, ms=11.3)], spread_db=0.1)
    assert "two seeds of one decoder differ by about 0.14 dB" in lines_of(console)[-1]


def test_what_is_over_a_further_limit_is_said_in_its_row() -> None:
    console = plain_console()
    fill(console, [outcome(0, "over budget", None, preset="flash_vaed_wan", detail="24.1 MB of package")])
    assert lines_of(console)[-1].endswith("over budget (24.1 MB of package), not trained")


def evaluation(to_teacher: bool = True) -> Evaluation:
    quality = Quality(27.123, 27.0, 27.2, 0.91234, 0.9, 0.9, None)
    return Evaluation("test", "key", quality if to_teacher else None, quality, (), "LPIPS off")


ROWS = [
    Row("nearest linear RGB", evaluation()),
    Row("teacher wan-tiny", evaluation(False), 1_550_000, 11.3e9, latency(950.4, "measured"), latency(94.1)),
    Row(f"#12 {CONFIG.summary()}", evaluation(), 950_000, 1.26e9, latency(87.7, "measured"), latency(21.7)),
]


def test_the_comparison_shows_every_number_in_one_line_per_decoder() -> None:
    console = plain_console()
    print_comparison(console, ROWS)
    assert "\x1b" not in text_of(console)
    lines = [line.rstrip() for line in lines_of(console)]
    cells = [re.split(r"  +", line) for line in lines]
    quality = "27.12 / 0.9123"
    assert cells[3] == ["nearest linear RGB", quality, quality]
    assert cells[4] == ["teacher wan-tiny", "1.55 M", "11.3", "950.4", "94.1", quality]
    assert cells[5] == [f"#12 {CONFIG.summary()}", "0.95 M", "1.3", "87.7", "21.7", quality, quality]
    assert lines[4].endswith(quality) and len(lines[4]) == len(lines[5]), "it stands in the column of the video"
    assert "measured on a phone" in lines[6] and "predicted for a phone" in lines[7]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_comparison_fits_a_terminal_and_breaks_no_number(width: int) -> None:
    console = terminal(width)
    print_comparison(console, ROWS)
    table = [line for line in lines_of(console) if not line.startswith(("here:", "*:"))]
    assert max(len(line) for line in table) <= width
    for text in ("27.12 / 0.9123", "950.4", "11.3", "1.55 M", "94.1"):
        assert any(text in line for line in table), text


def test_a_long_architecture_is_not_wrapped_off_a_terminal() -> None:
    console = plain_console()
    print_comparison(console, [*ROWS, Row(f"#13 {LONG.summary()}", evaluation(), 1, 1.0, None, None)])
    assert len(lines_of(console)) == 1 + 2 + 4 + 2


def test_quantities_come_in_units_that_read_well() -> None:
    seconds = {0: "0 s", 89.4: "89 s", 90: "2 min", 240: "4 min", 5399: "90 min", 5400: "1.5 h", 9000: "2.5 h"}
    assert {each: format_seconds(each) for each in seconds} == seconds
    counts = {0: "0", 99_999: "99999", 100_000: "0.10 M", 40.7e6: "40.70 M", 1e12: "1.0e12", 2.1e19: "2.1e19"}
    assert {each: format_count(each) for each in counts} == counts
    sizes = {0: "0 MB", 120 * 10**6: "120 MB", 34 * 10**8: "3.4 GB"}
    assert {each: format_bytes(each) for each in sizes} == sizes


def test_what_rounds_up_to_the_next_unit_is_given_in_it() -> None:
    assert [format_count(count) for count in (999_994_000, 999_999_999, 1e9)] == ["999.99 M", "1.00 G", "1.00 G"]
    assert [format_bytes(count) for count in (999_400_000, 999_900_000)] == ["999 MB", "1.0 GB"]


def test_off_a_terminal_lines_stay_whole_and_labels_line_up() -> None:
    console = plain_console()
    say(console, "clips", "[a] " + "x" * 500)
    warn(console, "skipped b[1].mp4")
    assert lines_of(console) == ["clips     [a] " + "x" * 500, "warning   skipped b[1].mp4"]


def test_plain_progress_says_nothing_about_short_work(wait: Callable[[float], None]) -> None:
    console = plain_console()
    with progress(console, "targets", "for training") as advance:
        for done in range(10):
            advance(done, 9)
            wait(0.9)
    assert text_of(console) == ""


def test_plain_progress_says_every_ten_seconds_how_long_it_takes(wait: Callable[[float], None]) -> None:
    console = plain_console()
    with progress(console, "targets", "for training") as advance:
        for done in range(31):
            advance(done, 60)
            wait(1.0)
    texts = (" 16%, 50 s left", " 33%, 40 s left", " 50%, 30 s left")
    assert lines_of(console) == [f"targets   for training {text}" for text in texts]


def test_plain_progress_with_nothing_done_yet_has_no_time_left(wait: Callable[[float], None]) -> None:
    console = plain_console()
    with progress(console, "latency") as advance:
        wait(60)
        advance(0, 5)
        wait(60)
        advance(1, 5)
    assert lines_of(console) == ["latency    20%, 8 min left"]


def test_on_a_terminal_progress_is_a_bar_that_vanishes() -> None:
    console = terminal(100)
    with progress(console, "targets", "for training") as advance:
        advance(1, 4)
    assert "25%" in text_of(console) and "for training" in text_of(console)
    assert text_of(console).rindex("\x1b[2K") > text_of(console).rindex("for training")
    assert max(len(line) for line in lines_of(console)) <= 100
