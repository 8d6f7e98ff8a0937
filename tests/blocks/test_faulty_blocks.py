"""A faulty block dropped into the folder as one file must be caught: each fault, and the checks that catch it."""

import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import blocks
from blocks import Block, list_blocks
from blocks.registry import _REGISTRY
from nas.testing.block_contract import CHECKS
from tests.support.dropped_in_parts import BLOCK, HEAD, UPSAMPLER


@dataclass(frozen=True)
class Fault:
    """What is changed in a healthy part, and who notices."""

    name: str
    caught_by: str
    """Checks of the contract that fail, separated by spaces."""
    message: str
    """What the first of them says."""
    changes: tuple[tuple[str, str], ...]
    """Old and new text."""
    part: str = BLOCK

    def text(self) -> str:
        """The faulty file."""
        text = self.part
        for old, new in self.changes:
            assert text.count(old) == 1, f"{self.name}: '{old}' is to be replaced, but is not there once"
            text = text.replace(old, new)
        return text


NORM = "self.norm = RmsNorm()"
BUILD = "self.conv = Conv3d(in_channels, out_channels, (kernel, kernel, kernel))"
ACTIVATE = "x = functional.silu(self.norm(x))"
RETURN = "return self.conv(x, time)"
REPEAT = "x = time.drop_leading_video(x.repeat_interleave(steps, dim=2), steps - 1)"
ENLARGE = 'to_video(functional.interpolate(to_frames(x), scale_factor=float(scale), mode="nearest"), time)'

SYMMETRIC = BUILD, "self.conv = nn.Conv3d(in_channels, out_channels, kernel, padding=kernel // 2)"
ROOT = "x = x * x.square().sum(dim=1, keepdim=True).sqrt()"
EVEN = "x = x[..., : x.shape[-1] // 2 * 2]"
FRAMES = "return to_frames(self.conv(x, time))"
NARROW_NORM = "x = x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)"
REMEMBER = "x = x + getattr(self, 'seen', 0.0)", "self.seen = x.mean().detach()"
FORGET = "x = x + functional.pad(x, (0, 0, 0, 0, 1, 0))[:, :, :-1]"
KEEP_ALL = "frames = x.shape[2]", "x = x + time.pad(x, max(2, frames))[:, :, -frames - 1 : -1]"
TWICE = REPEAT, REPEAT.replace("steps, dim", "2, dim")
KEEP_LEADING = REPEAT, "x = x.repeat_interleave(steps, dim=2)"
ENLARGE_5D = "functional.interpolate(x, scale_factor=(1.0, float(scale), float(scale)))"
TABLE = (
    "if x.shape[2] > 8:",
    '    raise IndexError(f"{x.shape[2]} frames, but there are 8 positions")',
)
PAIRS = "x = x.unflatten(0, (-1, min(2, len(x)))).flatten(0, 1)"
TWOFOLD = "self.factors =", "assert temporal_factor in (1, 2, 4)\n        self.factors ="


def insert(*lines: str) -> tuple[str, str]:
    """The change that puts these lines between the activation and the convolution."""
    return ACTIVATE, "\n        ".join([ACTIVATE, *lines])


def norm(new: str) -> tuple[str, str]:
    """The change that takes another norm."""
    return NORM, f"self.norm = {new}"


def parameter(name: str, shape: str) -> tuple[str, str]:
    """The change that adds a parameter of ones."""
    return NORM, f"{NORM}\n        self.{name} = nn.Parameter(torch.ones({shape}))"


FAULTS = (
    Fault("symmetric time padding", "causality streaming", "not causal", (SYMMETRIC, ("(x, time)", "(x)"))),
    Fault("group norm over time", "causality streaming", "not causal", (norm("nn.GroupNorm(2, in_channels)"),)),
    Fault("batch norm", "batch_independence evaluation", "others in its batch", (norm("nn.BatchNorm3d(in_channels)"),)),
    Fault("batch mean", "batch_independence", "others in its batch", (insert("x = x - x.mean(0, True) / 2"),)),
    Fault("unused parameter", "gradient macs", "parameter extra is not used", (parameter("extra", "3, 3"),)),
    Fault(
        "weight that learns nothing",
        "gradient",
        "the gradient of extra is zero everywhere",
        (parameter("extra", "3"), insert("x = x + 0 * self.extra.sum()")),
    ),
    Fault(
        "infinite gradient at zero",
        "gradient",
        "is not finite",
        (parameter("gain", "1"), insert("x = self.gain * x", ROOT)),
    ),
    Fault("infinite gradient of the input at zero", "gradient", "not finite", (insert(ROOT),)),
    Fault("odd sizes lose a column", "shape", "(1, 8, 3, 5, 6), not (1, 8, 3, 5, 7)", (insert(EVEN),)),
    Fault("layout not as promised", "shape", "of rank 4, its output layout has 5", ((RETURN, FRAMES),)),
    Fault(
        "data-dependent branch", "meta_device export", "data-dependent", (insert("if x.mean() > 0:", "    x = 2 * x"),)
    ),
    Fault("tensor of another device", "meta_device", "meta", (insert("x = x + torch.ones(x.shape[-1])"),)),
    Fault("uncounted operation", "macs", "the cost of ['aten::fft_fft'", (insert("x = torch.fft.fft(x).real"),)),
    Fault("6-D reshape", "core_ml", "rank <= 5", (insert("x = x.unflatten(1, (2, -1)).flip(1).flatten(1, 2)"),)),
    Fault("overflow in float16", "half_precision", "not finite in torch.float16", ((ACTIVATE, NARROW_NORM),)),
    Fault("always float32", "half_precision", "gives torch.float32 for", ((RETURN, f"{RETURN}.float()"),)),
    Fault("noise", "determinism", "another output for the same input", (insert("x = x + torch.rand_like(x)"),)),
    Fault("changes its input", "determinism", "changes its input", (("silu(self.norm(x))", "silu(x, True)"),)),
    Fault("state in the block", "determinism streaming", "another output", (insert(*REMEMBER),)),
    Fault("forgets the frame before", "streaming", "do not give what one shot gives", (insert(FORGET),)),
    Fault("state as long as the chunk", "streaming", "the state's size depends on the chunks", (insert(*KEEP_ALL),)),
    Fault("label of another part", "registration", "has the label 'dw3d' of", (('label="dropped"', 'label="dw3d"'),)),
    Fault("file of another name", "registration", "is in dropped_in.py", (('block("dropped_in"', 'block("dropped"'),)),
    Fault(
        "stem that cannot fold statistics",
        "registration",
        "has no convolution `conv` with bias",
        ((", label", ', role="stem", label'), ("self.conv =", "self.first ="), ("self.conv(", "self.first(")),
    ),
    Fault(
        "groups of eight channels",
        "construction shape",
        "cannot be built with in_channels=24, out_channels=12: out_channels must be divisible by groups",
        ((BUILD, BUILD.replace("kernel))", "kernel), groups=8)")),),
    ),
    Fault("only widens", "shape", "24 -> 12 channels", (insert("x = x[:, : self.conv.out_channels]"),)),
    Fault("table of eight frames", "shape", "11 frames", (insert(*TABLE),)),
    Fault("pairs of clips", "shape", "size of dim 0 (3)", (insert(PAIRS),)),
    Fault("no factor of three", "construction", "out_channels=12, temporal_factor=3", (TWOFOLD,), UPSAMPLER),
    Fault("wrong upsample factor", "shape", "(1, 8, 6, 8, 12), not (1, 8, 3, 8, 12)", (TWICE,), UPSAMPLER),
    Fault("leading frames are kept", "shape", "(1, 16, 6, 4, 6), not (1, 16, 5, 4, 6)", (KEEP_LEADING,), UPSAMPLER),
    Fault(
        "undeclared width multiple",
        "head_geometry",
        "declares a spatial factor of 2 and widths by 1, but refuses 17 channels",
        (("return spatial_factor**2", "return 1"),),
        HEAD,
    ),
    Fault(
        "width multiple too large",
        "head_geometry",
        "takes 33 channels for a spatial factor of 2, but declares multiples of 8",
        (("return spatial_factor**2", "return 2 * spatial_factor**2"), ("in_channels % spatial_factor**2", "False")),
        HEAD,
    ),
    Fault(
        "undeclared spatial factor",
        "head_geometry",
        "can be built for a spatial factor of 1, but does not declare it",
        (("spatial_factor == 1 or ", ""),),
        HEAD,
    ),
    Fault(
        "declared spatial factor that is refused",
        "construction head_geometry shape",
        "cannot be built with in_channels=4, spatial_factor=1: 4 channels cannot be shuffled by 1",
        (("return spatial_factor > 1", "return True"),),
        HEAD,
    ),
    Fault("5-D interpolate", "macs core_ml", "upsample_nearest3d", ((ENLARGE, ENLARGE_5D),), UPSAMPLER),
)

REFUSED = (
    ("tuple-valued option", "choice(3, 5)", "choice((3, 3), (5, 5))", "options must be str, int, float or bool"),
    ("option that is not searched", "choice(3, 5)", "3", "declare option 'kernel_size' with choice(...)"),
    ("name of another part", '"dropped_in"', '"memory_conv2d"', "part name 'memory_conv2d' is taken by"),
    ("unknown role", ", label", ', role="neck", label', "dropped_in: role must be one of stem, block, upsampler, head"),
    ("config that can change", "    @dataclass(frozen=True)\n", "", "dropped_in: Config must be decorated with"),
    (
        "config of its own kind",
        "class Config(BlockConfig)",
        "class Config",
        "its own nested `class Config(BlockConfig)`",
    ),
)
"""What does not even import: name, old text, new text, message."""

DropIn = Callable[[str], type[Block]]


@pytest.fixture
def drop_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DropIn]:
    """Takes the text of a part, puts it into a folder where parts are looked for, and imports it as one of them."""
    kept = dict(_REGISTRY)
    monkeypatch.setattr(blocks, "__path__", [*blocks.__path__, str(tmp_path)])

    def write(text: str) -> type[Block]:
        (tmp_path / "dropped_in.py").write_text(text)
        importlib.invalidate_caches()
        part: type[Block] = importlib.import_module("blocks.dropped_in").DroppedIn
        return part

    yield write
    _REGISTRY.clear()
    _REGISTRY.update(kept)  # other tests go through all parts that are registered
    sys.modules.pop("blocks.dropped_in", None)
    vars(blocks).pop("dropped_in", None)


@pytest.mark.parametrize("text", [BLOCK, UPSAMPLER, HEAD], ids=["block", "upsampler", "head"])
def test_a_healthy_part_passes(drop_in: DropIn, text: str) -> None:
    config = drop_in(text).Config()
    for check in CHECKS.values():
        check(config)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_a_faulty_part_is_caught(drop_in: DropIn, fault: Fault) -> None:
    config = drop_in(fault.text()).Config()
    first, *others = fault.caught_by.split()
    with pytest.raises(AssertionError) as caught:
        CHECKS[first](config)
    assert fault.message in str(caught.value) and config.name in str(caught.value)
    for check in others:
        with pytest.raises(AssertionError):
            CHECKS[check](config)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_the_cause_of_a_fault_comes_first(drop_in: DropIn, fault: Fault) -> None:
    """Of the checks that fail the first one says what is wrong; the conversions are the last and slow."""
    config = drop_in(fault.text()).Config()
    first = fault.caught_by.split()[0]
    for name, check in CHECKS.items():
        if name == first:
            return
        check(config)


def test_a_fault_of_one_option_is_caught(drop_in: DropIn) -> None:
    fault = Fault("", "shape", "", ((BUILD, f"{BUILD}\n        self.conv.padding = (0, 1, 1)"),))
    healthy, faulty = drop_in(fault.text()).Config.all_configs()
    CHECKS["shape"](healthy)
    with pytest.raises(AssertionError, match="kernel_size=5"):
        CHECKS["shape"](faulty)


@pytest.mark.parametrize(("name", "old", "new", "message"), REFUSED, ids=[row[0].replace(" ", "-") for row in REFUSED])
def test_what_cannot_be_searched_is_not_registered(
    drop_in: DropIn, name: str, old: str, new: str, message: str
) -> None:
    before = dict(_REGISTRY)
    with pytest.raises(ValueError) as caught:
        drop_in(Fault(name, "", "", ((old, new),)).text())
    assert message in str(caught.value)
    assert before == _REGISTRY


def test_one_file_is_all_it_takes(tmp_path: Path) -> None:
    shutil.copytree(Path(blocks.__file__).parent, tmp_path / "blocks", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "blocks" / "dropped_in.py").write_text(BLOCK)
    ask = "import blocks; print(blocks.__file__, *blocks.list_blocks())"
    run = subprocess.run([sys.executable, "-c", ask], cwd=tmp_path, capture_output=True, text=True, check=True)
    file, *names = run.stdout.split()
    assert Path(file).is_relative_to(tmp_path)
    assert names == sorted([*list_blocks(), "dropped_in"])
