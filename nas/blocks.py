"""What every block and upsampler costs at one size, and what the exact rewrites gain, as tables in Markdown.

    python -m nas.blocks
    python -m nas.blocks --width 96 --size 64 --no-core-ml
    python -m nas.blocks --check dense_conv3d

With `--check` the contract of one part runs on every option instead, and the first promise that it breaks is named.

Times are of the processor, on one thread, as ratios: all candidates run in turn, round after round, and each one's
fastest run is divided by the reference's.
"""

import copy
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.machine.plugins import load_plugins
from nas.terminal.errors import UserError, unknown_name
from nas.terminal.parser import Parser, positive_int, run_command

if TYPE_CHECKING:
    from torch import Tensor, nn

    from blocks import BlockConfig

_REFERENCES = {"block": "dense_conv3d", "upsampler": "decoupled_pixel_shuffle3d"}


@dataclass(frozen=True)
class Size:
    """What the parts are compared at: channels in and out, frames, height and width of the input."""

    width: int
    """Channels in and out."""
    frames: int
    """Frames of the input."""
    pixels: int
    """Height and width of the input in pixels."""


def make_parser() -> Parser:
    """The command's arguments."""
    parser = Parser("nas.blocks", "Compare every block and upsampler at one size, on this machine.")
    parser.add_argument("--width", type=positive_int, default=64, help="channels in and out (default 64)")
    parser.add_argument("--frames", type=positive_int, default=5, help="frames in (default 5)")
    parser.add_argument("--size", type=positive_int, default=32, help="height and width of the input (default 32)")
    parser.add_argument("--rounds", type=positive_int, default=9, help="timings of each part (default 9)")
    parser.add_argument("--no-core-ml", action="store_true", help="leave out the Core ML columns (half a minute)")
    parser.add_argument("--check", metavar="NAME", help="run the contract of this part instead (a minute)")
    parser.add_plugin_option()
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = make_parser().parse_args(arguments)
    size = Size(options.width, options.frames, options.size)

    def run() -> None:
        import torch

        load_plugins(options.plugin)
        if options.check:
            check_part(options.check)
            return
        torch.set_num_threads(1)
        for role in _REFERENCES:
            print(*compare_parts(role, size, options.rounds, core_ml=not options.no_core_ml), sep="\n")
            print()
        print(*compare_rewrites(size, options.rounds), sep="\n")

    return run_command(run, continue_with=None)


def check_part(name: str) -> None:
    """Run the contract of a part on every option, check by check.

    Raises:
        UserError: no part has this name, or it breaks a promise; says which one and where.
    """
    from blocks import get_block, list_blocks
    from nas.testing import CHECKS
    from nas.testing.block_cases import describe_options
    from nas.testing.block_parts import each_option

    if name not in list_blocks():
        raise unknown_name("part", name, list_blocks())
    for config in each_option(get_block(name).Config()):
        for title, check in CHECKS.items():
            try:
                check(config)
            except AssertionError as error:
                raise UserError(f"{title}: {' '.join(str(error).split())}") from error
        print(f"{describe_options(config)}: keeps all {len(CHECKS)} promises", flush=True)


def compare_parts(role: str, size: Size, rounds: int, *, core_ml: bool) -> Iterator[str]:
    """Rows of a table over all parts of a role: upsamplers double time and space, all else keeps them."""
    from blocks import get_block
    from nas.latency import list_operations

    configs = list(_configs(role))
    modules = [_one_input(config, size) for config in configs]
    examples = [_example(module, size) for module in modules]
    reference = configs.index(get_block(_REFERENCES[role]).Config())
    forward = _ratios([_forward(*case) for case in zip(modules, examples, strict=True)], reference, rounds)
    backward = _ratios([_backward(*case) for case in zip(modules, examples, strict=True)], reference, rounds)
    columns = [role, "parameters", "MMACs", "forward", "forward and backward"]
    yield _row([*columns, *(["Core ML operations", "transposes", "reshapes"] if core_ml else [])])
    yield _row(["---"] * (len(columns) + 3 * core_ml))
    for config, module, x, fast, slow in zip(configs, modules, examples, forward, backward, strict=True):
        macs = sum(operation.macs for operation in list_operations(module, x.shape))
        parameters = sum(parameter.numel() for parameter in module.parameters())
        cells = [_title(config), f"{parameters:,}", f"{macs / 1e6:.0f}", f"{fast:.2f}", f"{slow:.2f}"]
        yield _row(cells + (_core_ml_counts(module, x) if core_ml else []))


def compare_rewrites(size: Size, rounds: int) -> Iterator[str]:
    """Rows of a table over the exact rewrites: time of the rewritten part over that of the part."""
    from blocks import get_block, rewrites

    def part(name: str, **options: str | int | bool) -> "BlockConfig":
        return get_block(name).Config(**options)

    cases: list[tuple[str, BlockConfig, Callable[[nn.Module], int]]] = [
        ("enlargement as sub-pixel convolutions", part("nearest_conv2d"), rewrites.subpixel_enlargements),
        ("norms folded", part("inverted_bottleneck3d", norm="batch"), rewrites.fold_norms),
        ("norms folded", part("residual_conv2d", norm="batch"), rewrites.fold_norms),
        ("branches merged", part("reparameterized_conv3d"), lambda module: rewrites.merge_branches(module, "causal")),
        ("3-D as a sum of 2-D", part("dense_conv3d"), rewrites.conv3d_as_slices),
        ("3-D as a sum of 2-D", part("depthwise_separable_conv3d"), rewrites.conv3d_as_slices),
        ("3-D as 2-D over joined frames", part("dense_conv3d"), rewrites.conv3d_as_joined_frames),
    ]
    yield _row(["rewrite", "of", "time"])
    yield _row(["---"] * 3)
    for title, config, rewrite in cases:
        before = _one_input(config, size)
        after = copy.deepcopy(before)
        if rewrite(after) == 0:
            raise RuntimeError(f"the rewrite '{title}' finds nothing to change in {_title(config)}")
        x = _example(before, size)
        _, ratio = _ratios([_forward(before, x), _forward(after, x)], 0, rounds)
        yield _row([title, _title(config), f"{ratio:.2f}"])


def _configs(role: str) -> "Iterator[BlockConfig]":
    """The default of every part of a role, and where the projection is a choice, all of them."""
    from blocks import get_block, list_blocks

    for name in list_blocks(role):  # type: ignore[arg-type]
        config = get_block(name).Config
        projections = config.choices().get("projection", ())
        yield from [config(projection=each) for each in projections] or [config()]  # type: ignore[call-arg]


def _one_input(config: "BlockConfig", size: Size) -> "nn.Module":
    """The part as a module that takes one clip in the part's layout, in evaluation mode, causal."""
    import torch
    from torch import nn

    from blocks import TimeContext, build_block, get_block

    factors = {"temporal_factor": 2, "spatial_factor": 2} if get_block(config.name).role == "upsampler" else {}
    torch.manual_seed(0)

    class OneInput(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = build_block(config, size.width, out_channels=size.width, **factors)

        def forward(self, x: "Tensor") -> "Tensor":
            out: Tensor = self.part(x, TimeContext(1, "causal", drop_leading=True))
            return out

    return OneInput().eval()


def _example(module: "nn.Module", size: Size) -> "Tensor":
    import torch

    frames = (size.frames, size.width, size.pixels, size.pixels)
    video = (1, size.width, size.frames, size.pixels, size.pixels)
    return torch.randn(frames if module.part.input_layout == "frames" else video)  # type: ignore[union-attr]


def _forward(module: "nn.Module", x: "Tensor") -> Callable[[], object]:
    import torch

    @torch.inference_mode()
    def run() -> object:
        return module(x)

    return run


def _backward(module: "nn.Module", x: "Tensor") -> Callable[[], object]:
    return lambda: module(x).square().mean().backward()


def _ratios(functions: Sequence[Callable[[], object]], reference: int, rounds: int) -> list[float]:
    """Fastest run of each over the reference's; a first round is thrown away."""
    times = [[_cpu_seconds(function) for function in functions] for _ in range(rounds + 1)]
    fastest = [min(column) for column in zip(*times[1:], strict=True)]
    return [seconds / fastest[reference] for seconds in fastest]


def _cpu_seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def _core_ml_counts(module: "nn.Module", x: "Tensor") -> list[str]:
    """Operations of the converted program, and how many of them are transposes and reshapes."""
    from nas.core_ml.convert import to_mil
    from nas.core_ml.program import from_mil

    kinds = [operation.op_type for operation in from_mil(to_mil(module, x)).operations]
    computed = [kind for kind in kinds if kind != "cast"]
    return [str(len(computed)), str(computed.count("transpose")), str(computed.count("reshape"))]


def _title(config: "BlockConfig") -> str:
    """Name, with the projection and with the options that are not the default."""

    changed = [
        str(value) if isinstance(value, str) else f"{option} {value}"
        for option, value in config.to_dict().items()
        if option != "name" and (option == "projection" or value != config.options()[option][0])
    ]
    return f"`{config.name}`" + (f", {', '.join(changed)}" if changed else "")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
