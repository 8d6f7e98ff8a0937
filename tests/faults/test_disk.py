"""Disks that refuse, kills in the middle of a write, and what lies beside it: nothing is lost, one clear line."""

import errno
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from nas.export.package import export_decoder
from nas.export.settings import ExportSettings
from nas.machine.files import check_output, disk_errors, write_bytes, write_json
from nas.machine.locks import lock_folder
from nas.machine.temporary import PREFIX, put_in_place, sweep, temporary_file, temporary_folder
from nas.terminal.errors import UserError
from nas.terminal.parser import run_command
from tests.support.errors import refusal
from tests.support.exported_decoders import small_decoder

ROOT = Path(__file__).parents[2]


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A disk that takes no file over so many bytes, whoever writes it: also what is not Python fails there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_the_umask_decides_who_may_read(mask: int, tmp_path: Path) -> None:
    """Files, folders, and what a library has made for its owner alone."""
    with umask(mask):
        write_json(tmp_path / "folder" / "a.json", {})
        with temporary_folder(tmp_path) as work:
            (work / "new" / "weights").mkdir(parents=True)
            for path in (work / "new" / "weights", work / "new"):
                path.chmod(0o700)
            (work / "new" / "weights" / "w.bin").write_bytes(b"1")
            (work / "new" / "weights" / "w.bin").chmod(0o600)
            put_in_place(work / "new", tmp_path / "package")
    for path in tmp_path.rglob("*"):
        full = 0o777 if path.is_dir() else 0o666
        assert stat.S_IMODE(path.stat().st_mode) == full & ~mask, path


DIES = """
import os, signal, sys
from pathlib import Path
from nas.machine.temporary import put_in_place, temporary_file, temporary_folder
folder, what = Path(sys.argv[1]), sys.argv[2]
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
if what == "file":
    with temporary_file(folder) as (_, file):
        file.write(bytes(100000))
        die()
with temporary_folder(folder) as work:
    (work / "new").mkdir()
    (work / "new" / "version").write_text("new")
    if what == "folder":
        die()
    real, moves = Path.rename, []
    def rename(self, target):
        if len(moves) == int(what):
            die()
        moves.append(target)
        return real(self, target)
    Path.rename = rename
    put_in_place(work / "new", folder / "model")
    die()
"""


def kill_in(folder: Path, what: str) -> None:
    """A process that is ended by `kill -9` at that point of its work in the folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", DIES, str(folder), what], env=environment)
    assert done.returncode == -signal.SIGKILL
    assert [name for name in names(folder) if name.startswith(PREFIX)]


def start_again(folder: Path, how: str) -> None:
    if how == "lock":
        with lock_folder(folder, "wait"):
            pass
    elif how == "write":
        write_bytes(folder / "other", b"")
    elif how == "check":
        check_output(folder, "cannot write")
    else:
        sweep(folder.parent)


@pytest.mark.parametrize("how", ["lock", "write", "check", "sweep"])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_a_kill_leaves_is_gone_after_the_next_start(what: str, how: str, tmp_path: Path) -> None:
    kill_in(tmp_path, what)
    (tmp_path / ".mine").write_text("a file of the user's")
    start_again(tmp_path, how)
    assert set(names(tmp_path)) - {".lock", "other"} == {".mine"}


@pytest.mark.parametrize(("moves", "version"), [("0", "old"), ("1", "old"), ("2", "new")])
def test_a_kill_while_a_folder_is_replaced_loses_neither(moves: str, version: str, tmp_path: Path) -> None:
    """Before, between, and after the two renames."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "version").write_text("old")
    kill_in(tmp_path, moves)
    sweep(tmp_path)
    assert names(tmp_path) == ["model"]
    assert (tmp_path / "model" / "version").read_text() == version


def test_what_somebody_works_with_stays(tmp_path: Path) -> None:
    with temporary_file(tmp_path) as (path, _), temporary_folder(tmp_path) as work:
        old = 1e9
        for each in (path, work):
            os.utime(each, (old, old))
        sweep(tmp_path)
        assert path.exists() and work.exists()
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP])
def test_without_locks_the_age_decides(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    kill_in(tmp_path, "file")
    monkeypatch.setattr("fcntl.flock", missing)
    sweep(tmp_path)
    (left,) = tmp_path.iterdir()
    os.utime(left, (1e9, 1e9))
    write_bytes(tmp_path / "also without locks", b"1")
    sweep(tmp_path)
    assert names(tmp_path) == ["also without locks"]
    refused = refusal(lambda: lock_folder(tmp_path, "wait").__enter__())
    assert refused == f"{tmp_path} cannot be locked on this disk: choose a folder on another disk"


def wrapped() -> Exception:
    error = RuntimeError("a library's own words")
    error.__cause__ = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    return error


FULL = os.strerror(errno.ENOSPC)
ERRORS: dict[str, tuple[Callable[[], Exception], str]] = {
    "python": (lambda: OSError(errno.ENOSPC, FULL, "a/b"), "the disk is full (a/b)"),
    "shutil": (lambda: shutil.Error([("a", "b", f"[Errno 28] {FULL}: 'b'")]), "the disk is full"),
    "safetensors": (lambda: SafetensorError(f"I/O error: {FULL} (os error 28)"), "the disk is full"),
    "C++": (lambda: RuntimeError(f"filesystem error: cannot copy file: {FULL} [a] [b]"), "the disk is full"),
    "cause": (wrapped, "the disk quota is used up"),
    "name": (lambda: OSError(errno.ENAMETOOLONG, "File name too long", "a" * 300), "a name in the path is too long"),
    "gone": (lambda: FileNotFoundError(errno.ENOENT, "No such file or directory", "a/b"), "there is no such file"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_whatever_says_that_the_disk_refuses_is_one_line(kind: str) -> None:
    make, words = ERRORS[kind]

    def fail() -> None:
        with disk_errors("cannot write it"):
            raise make()

    assert refusal(fail).startswith(f"cannot write it: {words}")


@pytest.mark.parametrize("kind", ERRORS)
def test_a_command_ends_with_that_line_wherever_it_happens(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, words = ERRORS[kind]

    def fail() -> None:
        raise make()

    assert run_command(fail, "the same") == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1 and words.split(" (")[0] in line


@pytest.mark.parametrize("error", [ValueError("28 is no size"), ConnectionRefusedError(111, "Connection refused")])
def test_other_errors_are_not_taken_for_the_disks(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, disk_errors("cannot write it", tmp_path):
        raise error
    assert caught.value is error
    with pytest.raises(type(error)):
        run_command(lambda: (_ for _ in ()).throw(error), "the same")


def test_an_error_without_a_reason_is_the_disks_if_it_takes_nothing_more(tmp_path: Path) -> None:
    """As coremltools' "Unknown error occurred while writing data to the file"."""

    def fail() -> None:
        with largest_file(1000), disk_errors("cannot write it", tmp_path):
            raise RuntimeError("unknown error")

    assert refusal(fail).startswith("cannot write it: the file is larger than the disk or the shell allows")


@pytest.mark.parametrize("size", [500, 60_000, 500_000])
def test_a_disk_that_fills_up_anywhere_in_an_export(size: int, tmp_path: Path) -> None:
    """While it is converted, saved, described: the package that was there stays, and nothing else does."""
    path = tmp_path / "decoder.mlpackage"
    with largest_file(size):
        line = refusal(lambda: export_decoder(small_decoder(), ExportSettings(16, 24, 1), path, metadata={}))
    assert "larger than the disk or the shell allows" in line
    assert names(tmp_path) == []


def test_a_full_disk_is_blamed_by_the_name_that_the_user_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, FULL)

    monkeypatch.setattr(os, "fsync", full)

    def write() -> None:
        with disk_errors("cannot write it"):
            write_bytes(tmp_path / "data.json", b"1")

    assert refusal(write).startswith(f"cannot write it: the disk is full ({tmp_path}/data.json)")
    assert names(tmp_path) == []


LONG, RAW = "n" * 250, os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize("name", [LONG, RAW])
def test_names_up_to_what_the_disk_takes(name: str, tmp_path: Path) -> None:
    """Also such that leave no room for more characters, or are not UTF-8."""
    write_bytes(tmp_path / name / name, b"1")
    write_bytes(tmp_path / name / name, b"2")
    assert (tmp_path / name / name).read_bytes() == b"2"
    check_output(tmp_path / name / "other", "cannot write")


OUTPUTS: dict[str, tuple[str, str]] = {
    "a file": ("file", "a part of the path is a file"),
    "below a file": ("file/more/levels", "a part of the path is a file"),
    "a long name": ("more/" + "n" * 256, "a name in the path is too long"),
    "a package": ("x.mlpackage", "is inside the package x.mlpackage"),
    "inside a package": ("x.mlpackage/Data/more", "is inside the package x.mlpackage"),
    "a circle": ("circle/more", "links lead in a circle"),
    "a system's folder": ("proc/more", ""),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_an_output_is_refused_before_the_work(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "x.mlpackage" / "Data").mkdir(parents=True)
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "proc").symlink_to("/proc")
    before = sorted(tmp_path.rglob("*"))
    name, words = OUTPUTS[kind]
    line = refusal(lambda: check_output(tmp_path / name, "cannot write there"))
    assert line.startswith("cannot write there: ") and words in line
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_that_can_be_made_is_not_made_yet(tmp_path: Path) -> None:
    check_output(tmp_path / "a" / "b", "cannot write there")
    assert names(tmp_path) == []


@pytest.mark.parametrize("what", ["file", "folder of notes", "package of another program"])
def test_a_package_replaces_nothing_but_a_package(what: str, tmp_path: Path) -> None:
    path = tmp_path / "decoder.mlpackage"
    if what == "file":
        path.write_text("mine")
    elif what == "folder of notes":
        path.mkdir()
        (path / "note.txt").write_text("mine")
    else:
        write_json(path / "Manifest.json", {"rootModelIdentifier": "x", "itemInfoEntries": {}})
    before = {each: each.read_bytes() for each in (path, *path.rglob("*")) if each.is_file()}
    line = refusal(lambda: export_decoder(small_decoder(), ExportSettings(16, 24, 1), path, metadata={}))
    assert line.startswith(f"{path} is there and is not a package of a decoder")
    assert {each: each.read_bytes() for each in (path, *path.rglob("*")) if each.is_file()} == before


def test_a_size_that_does_not_fit_into_memory_is_refused_at_once(tmp_path: Path) -> None:
    settings = ExportSettings(65536, 65536, 17)
    line = refusal(lambda: export_decoder(small_decoder(), settings, tmp_path / "x.mlpackage", metadata={}))
    assert line.startswith("17 frames at 65536x65536 need about ") and " GB of memory to be converted" in line
    assert names(tmp_path) == []


def test_the_worst_of_several_latents_counts(tmp_path: Path) -> None:
    """Real ones that are far louder than noise: a package that is fine on noise is refused for them."""
    settings, path = ExportSettings(16, 24, 1, weights="8bit"), tmp_path / "x.mlpackage"
    least = export_decoder(small_decoder(), settings, path, metadata={"architecture_hash": "x"}).psnr
    real = torch.cat([torch.zeros(1, 16, 1, 2, 3), 20 * torch.randn(1, 16, 1, 2, 3)])
    report = export_decoder(small_decoder(), settings, path, metadata={}, latents=real)
    (proof,) = report.proofs.values()
    assert len(proof.psnr_draws) == 3 and report.psnr == min(proof.psnr_draws) < least
    assert "on the worst of 3 latents" in report.describe()


def test_a_refused_lock_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(UserError, match=f"cannot write to {tmp_path}: it is a folder"), lock_folder(tmp_path, "wait"):
        pass
