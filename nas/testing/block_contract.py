"""The contract that every registered part keeps, whatever its options. One check per promise:

    from nas.testing import CHECKS

    for check in CHECKS.values():
        check(get_block("my_block").Config())

A check raises AssertionError that names the part, its options and geometry, and what is wrong. They come in an order in
which a fault is met first by the check that says its cause: noise breaks causality and streaming, too, but the
first that fails is determinism.
"""

import inspect
import json
from pathlib import Path

from torch import nn

from blocks import block_config, get_block, list_blocks
from nas.testing import block_behaviour as behaviour
from nas.testing import block_computing as computing
from nas.testing.block_parts import Part
from nas.testing.checking import Check, in_one_geometry
from nas.testing.head_geometry import broken_promises


@in_one_geometry
def check_registration(part: Part) -> None:
    """In `blocks` the name is the file's; no other part prints the same label; a stem exposes its convolution."""
    block = type(part.block)
    file = Path(inspect.getfile(block)).stem
    ours = block.__module__.split(".")[0] == "blocks"
    part.expect(file == block.name or not ours, f"is in {file}.py, but a part is in the file of its name")
    twins = [name for name in list_blocks() if get_block(name).label == block.label and name != block.name]
    part.expect(not twins, f"has the label '{block.label}' of {twins}")
    if block.role == "stem":
        conv = getattr(part.block, "conv", None)
        folds = isinstance(conv, (nn.Conv2d, nn.Conv3d)) and conv.bias is not None
        part.expect(folds, "has no convolution `conv` with bias, into which the latents' statistics can be folded")


@in_one_geometry
def check_json(part: Part) -> None:
    """The config goes through JSON and comes back equal, hash included."""
    data = json.loads(json.dumps(part.config.to_dict()))
    back = block_config(data)
    part.expect(back == part.config and hash(back) == hash(part.config), f"came back from JSON as {back}")
    part.expect(data == part.config.to_dict(), "its JSON came back changed")


@in_one_geometry
def check_head_geometry(part: Part) -> None:
    """A head takes the spatial factors and the multiples of width that it declares, and no others."""
    broken = list(broken_promises(part.config)) if part.block.role == "head" else []
    part.expect(not broken, "; ".join(broken))


CHECKS: dict[str, Check] = {
    "registration": check_registration,
    "json": check_json,
    "construction": behaviour.check_construction,
    "head_geometry": check_head_geometry,
    "shape": behaviour.check_shape,
    "meta_device": behaviour.check_meta_device,
    "determinism": behaviour.check_determinism,
    "batch_independence": behaviour.check_batch_independence,
    "causality": behaviour.check_causality,
    "evaluation": behaviour.check_evaluation,
    "streaming": behaviour.check_streaming,
    "gradient": computing.check_gradient,
    "macs": computing.check_macs,
    "fit": computing.check_fit,
    "silence": computing.check_silence,
    "half_precision": computing.check_half_precision,
    "export": computing.check_export,
    "core_ml": computing.check_core_ml,
}
"""Every check by its name, in the order of causes."""
