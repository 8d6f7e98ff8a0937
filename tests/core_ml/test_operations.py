"""What single Core ML operations compute here, against coremltools' own constant folding and against PyTorch."""

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nas.core_ml.convert import to_mil
from nas.core_ml.coremltools_package import import_coremltools, quiet_coremltools
from nas.core_ml.interpreter import UnknownOperationError, interpret, unknown_operations, walk
from nas.core_ml.program import Program, from_mil

import_coremltools()

from coremltools.converters.mil import Builder as mb  # noqa: E402

Array = NDArray[np.float32]
Build = Callable[[Any], Any]


def numbers(*shape: int) -> Array:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def build(operation: Build, x: Array) -> tuple[Program, Array]:
    """A program of one operation, and what coremltools itself computes for these values of its input."""
    ct = import_coremltools()
    folded: list[Any] = []

    with quiet_coremltools():

        @mb.program(input_specs=[mb.TensorSpec(shape=x.shape)], opset_version=ct.target.iOS18)  # type: ignore[untyped-decorator]
        def program(x_: Any) -> Any:
            folded.append(operation(x).val)
            return operation(x_)

    assert folded[0] is not None, "coremltools does not fold this operation"
    return from_mil(program), folded[0]


def run(program: Program, x: Array, *, rounded: bool = False) -> Tensor:
    (given,) = program.inputs
    (out,) = interpret(program, {given.name: torch.from_numpy(x)}, rounded=rounded).values()
    return out


FOLDED: dict[str, tuple[tuple[int, ...], Build]] = {
    "slice with steps": (
        (4, 5, 6),
        lambda x: mb.slice_by_index(x=x, begin=[1, 0, 5], end=[4, 5, 0], stride=[2, 2, -2]),
    ),
    "slice from the end": ((4, 6), lambda x: mb.slice_by_index(x=x, begin=[-3, -1], end=[-1, -4], stride=[1, -1])),
    "slice with open ends": (
        (4, 5, 6),
        lambda x: mb.slice_by_index(
            x=x, begin=[9, 1, 2], end=[0, 9, 9], begin_mask=[True, False, False], end_mask=[True, True, False]
        ),
    ),
    "slice of one index": (
        (4, 5, 6),
        lambda x: mb.slice_by_index(x=x, begin=[-1, 0, 2], end=[0, 5, 3], squeeze_mask=[True, False, True]),
    ),
    "slice by size": ((4, 5, 6), lambda x: mb.slice_by_size(x=x, begin=[1, 0, 2], size=[2, -1, 3])),
    "pad constant": ((2, 3, 4), lambda x: mb.pad(x=x, pad=[1, 0, 2, 3], mode="constant", constant_val=-1.5)),
    "pad replicate": ((2, 3, 4), lambda x: mb.pad(x=x, pad=[0, 0, 2, 1, 0, 5], mode="replicate")),
    "pad reflect": ((2, 3, 4), lambda x: mb.pad(x=x, pad=[0, 1, 2, 1, 3, 0], mode="reflect")),
    "concat": ((2, 3, 4), lambda x: mb.concat(values=(x, x), axis=-2)),
    "norm": ((2, 3, 4), lambda x: mb.reduce_l2_norm(x=x, axes=[1], keep_dims=True)),
    "reshape that keeps and infers": ((2, 6, 5), lambda x: mb.reshape(x=x, shape=[0, -1, 3])),
    "transpose": ((2, 3, 4), lambda x: mb.transpose(x=x, perm=[2, 0, -2])),
    "expand several axes": ((2, 3), lambda x: mb.expand_dims(x=x, axes=[0, -1, 2])),
    "squeeze some axes": ((1, 3, 1, 1), lambda x: mb.squeeze(x=x, axes=[0, -1])),
    "squeeze all axes": ((1, 3, 1), lambda x: mb.squeeze(x=x)),
    "split by sizes": ((2, 7), lambda x: mb.split(x=x, split_sizes=[2, 5], axis=-1)[1]),
    "split evenly": ((6, 2), lambda x: mb.split(x=x, num_splits=3, axis=0)[2]),
    "gather from the end": ((4, 5), lambda x: mb.gather(x=x, indices=np.array([[0, -1], [2, 2]], np.int32), axis=0)),
    "reduce mean": ((2, 3, 4), lambda x: mb.reduce_mean(x=x, axes=[0, -1], keep_dims=True)),
    "reduce sum over all": ((2, 3), lambda x: mb.reduce_sum(x=x)),
    "reduce max": ((2, 3, 4), lambda x: mb.reduce_max(x=x, axes=[1], keep_dims=False)),
    "cast cuts off": (
        (3, 4),
        lambda x: mb.cast(x=mb.cast(x=mb.mul(x=x, y=np.float32(3)), dtype="int32"), dtype="fp32"),
    ),
    "rsqrt with epsilon": ((3, 4), lambda x: mb.rsqrt(x=mb.square(x=x), epsilon=np.float32(0.5))),
    "log with epsilon": ((3, 4), lambda x: mb.log(x=mb.square(x=x), epsilon=np.float32(0.5))),
    "inverse with epsilon": ((3, 4), lambda x: mb.inverse(x=mb.square(x=x), epsilon=np.float32(0.5))),
    "clip": ((3, 4), lambda x: mb.clip(x=x, alpha=np.float32(-0.5), beta=np.float32(0.25))),
    "select": ((3, 4), lambda x: mb.select(cond=mb.greater(x=x, y=np.float32(0)), a=x, b=np.float32(7))),
    "maximum of broadcast": ((3, 4), lambda x: mb.maximum(x=x, y=np.array([[0.1], [0.2], [0.3]], np.float32))),
    "power": ((3, 4), lambda x: mb.pow(x=mb.abs(x=x), y=np.float32(1.5))),
    "division": ((3, 4), lambda x: mb.real_div(x=np.float32(2), y=x)),
    "leaky relu": ((3, 4), lambda x: mb.leaky_relu(x=x, alpha=np.float32(0.3))),
    "thresholded relu": ((3, 4), lambda x: mb.thresholded_relu(x=x, alpha=np.float32(0.3))),
    "elu": ((3, 4), lambda x: mb.elu(x=x, alpha=np.float32(0.3))),
    "hard sigmoid": ((3, 4), lambda x: mb.sigmoid_hard(x=x, alpha=np.float32(0.3), beta=np.float32(0.4))),
    "gelu": ((3, 4), lambda x: mb.gelu(x=x, mode="EXACT")),
    "gelu by tanh": ((3, 4), lambda x: mb.gelu(x=x, mode="TANH_APPROXIMATION")),
    "gelu by sigmoid": ((3, 4), lambda x: mb.gelu(x=x, mode="SIGMOID_APPROXIMATION")),
    "matmul of transposed": ((4, 3), lambda x: mb.matmul(x=x, y=numbers(2, 4), transpose_x=True, transpose_y=True)),
    "layer norm": (
        (2, 3, 4),
        lambda x: mb.layer_norm(x=x, axes=[-1], gamma=numbers(4), beta=numbers(4), epsilon=np.float32(0.1)),
    ),
}
"""Operations that coremltools computes itself where the input is known."""


@pytest.mark.parametrize("name", FOLDED)
def test_an_operation_gives_what_coremltools_gives(name: str) -> None:
    shape, operation = FOLDED[name]
    program, expected = build(operation, numbers(*shape))
    out = run(program, numbers(*shape))
    assert tuple(out.shape) == np.shape(expected)
    np.testing.assert_allclose(out.numpy(), expected, rtol=2e-6, atol=2e-6)


class Several(nn.Module):
    """Several functions of one input, so that one conversion serves them all."""

    def __init__(self, **functions: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.functions = functions
        self.parts = nn.ModuleList(part for part in functions.values() if isinstance(part, nn.Module))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(function(x) for function in self.functions.values())


GROUPS: dict[str, tuple[tuple[int, ...], Several, set[str]]] = {
    "activations": (
        (2, 3, 4, 5),
        Several(
            silu=functional.silu,
            relu6=functional.relu6,
            softplus=functional.softplus,
            tanh=torch.tanh,
            sigmoid=torch.sigmoid,
            prelu=nn.PReLU(3),
            erf=torch.erf,
            hard=functional.hardswish,
            minimum=lambda x: torch.minimum(x, 2 * x),
        ),
        {"silu", "relu6", "softplus", "tanh", "sigmoid", "prelu", "erf", "sigmoid_hard", "minimum"},
    ),
    "convolutions in 2-D": (
        (2, 8, 9, 7),
        Several(
            strided=nn.Conv2d(8, 4, 3, stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
            grouped=nn.Conv2d(8, 12, (1, 3), groups=4, bias=False),
            same=nn.Conv2d(8, 4, (2, 4), padding=(1, 0), bias=False),
            up=nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1),
            up_grouped=nn.ConvTranspose2d(8, 6, 3, stride=(3, 2), padding=(0, 1), groups=2),
        ),
        {"conv", "conv_transpose"},
    ),
    "convolutions in 3-D": (
        (1, 4, 5, 6, 7),
        Several(
            depthwise=nn.Conv3d(4, 4, 3, padding=(0, 1, 1), groups=4),
            strided=nn.Conv3d(4, 6, (1, 2, 3), stride=(1, 2, 2)),
            up=nn.ConvTranspose3d(4, 3, 2, stride=2),
        ),
        {"conv", "conv_transpose"},
    ),
    "interpolation": (
        (2, 3, 4, 5),
        Several(
            nearest=lambda x: functional.interpolate(x, scale_factor=(2.0, 3.0), mode="nearest"),
            bilinear=lambda x: functional.interpolate(x, scale_factor=2.0, mode="bilinear"),
            corners=lambda x: functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True),
            shuffle=lambda x: functional.pixel_shuffle(torch.cat([x] * 4, dim=1), 2),
            unshuffle=lambda x: functional.pixel_unshuffle(x[..., :4], 2),
        ),
        {"upsample_nearest_neighbor", "upsample_bilinear", "pixel_shuffle", "pixel_unshuffle"},
    ),
    "norms": (
        (2, 6, 4, 5),
        Several(
            batch=nn.BatchNorm2d(6).eval(),
            instance=nn.InstanceNorm2d(6, affine=True),
            group=nn.GroupNorm(2, 6),
            layer=nn.LayerNorm([4, 5], eps=0.1),
            unit=lambda x: functional.normalize(x, dim=1),
        ),
        {"batch_norm", "layer_norm"},
    ),
    "products": (
        (2, 4, 6),
        Several(
            linear=nn.Linear(6, 3),
            matmul=lambda x: x @ x.mT,
            einsum=lambda x: torch.einsum("bij,bkj->bik", x, x + 1),
            attention=lambda x: functional.scaled_dot_product_attention(x, x + 1, x - 1),
        ),
        {"linear", "matmul"},
    ),
    "copies": (
        (2, 3, 4, 5),
        Several(
            repeated=lambda x: x.repeat_interleave(3, dim=1),
            tiled=lambda x: x.repeat(1, 2, 1, 3),
            joined=lambda x: torch.cat([x[:, :1], x, x.flip(2)], dim=1),
            interleaved=lambda x: torch.stack([x, 2 * x, x], dim=1).flatten(0, 1),
            stacked=lambda x: torch.stack(x.chunk(2, dim=2), dim=1),
            picked=lambda x: x[:, torch.tensor([2, 0, 0])],
        ),
        {"tile", "concat"},
    ),
}
"""Name, shape of the input, functions, and the types of operations that they have to become."""


@pytest.mark.parametrize("name", GROUPS)
def test_operations_give_what_pytorch_gives(name: str) -> None:
    shape, module, expected = GROUPS[name]
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    x = torch.from_numpy(numbers(*shape))
    program = from_mil(to_mil(module.eval(), x, precision="float32"))
    assert expected <= {operation.op_type for operation in program.operations}
    (given,) = program.inputs
    outputs = interpret(program, {given.name: x}, rounded=False)
    with torch.no_grad():
        wanted = module(x)
    for out, reference in zip(outputs.values(), wanted, strict=True):
        torch.testing.assert_close(out, reference, rtol=1e-5, atol=2e-6)


def test_float16_is_rounded_after_every_operation() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x + 2048.0) - 2048.0

    x = torch.tensor([[0.3, 1.0, 1.6]])
    half, single = (from_mil(to_mil(Sum(), x, precision=precision)) for precision in ("float16", "float32"))
    assert {out.dtype for operation in half.operations for out in operation.results} == {"fp16"}
    # Between 2048 and 4096 float16 has steps of 2.
    assert run(half, x.numpy(), rounded=True).tolist() == [[0.0, 0.0, 2.0]]
    torch.testing.assert_close(run(half, x.numpy()), x, rtol=0, atol=1e-3)
    assert run(single, x.numpy(), rounded=True).equal(run(single, x.numpy()))


def test_what_overflows_float16_becomes_infinite() -> None:
    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x

    program = from_mil(to_mil(Square(), torch.zeros(1, 2)))
    x = np.array([[300.0, 3.0]], np.float32)
    assert run(program, x, rounded=True).tolist() == [[float("inf"), 9.0]]
    assert run(program, x).tolist() == [[90000.0, 9.0]]


def test_an_unknown_operation_is_an_error_that_names_it() -> None:
    program, _ = build(lambda x: mb.cumsum(x=x, axis=0), numbers(3, 4))
    assert unknown_operations(program.operations) == ["cumsum"]
    with pytest.raises(UnknownOperationError, match=r"operation 'cumsum' \(cumsum_\d+\) is not known"):
        run(program, numbers(3, 4))


def test_an_unknown_option_is_an_error_that_names_it() -> None:
    x = numbers(2, 3, 4)
    program, _ = build(lambda x: mb.gather(x=x, indices=np.array([[0], [1]], np.int32), axis=1, batch_dims=1), x)
    with pytest.raises(UnknownOperationError, match=r"operation 'gather' \(gather_\d+\): batch_dims must be 0, got 1"):
        run(program, x)


def test_other_inputs_than_the_programs_are_refused() -> None:
    program, _ = build(lambda x: mb.relu(x=x), numbers(3, 4))
    for inputs in ({}, {"x_": torch.zeros(4, 3)}, {"x_": torch.zeros(3, 4), "y": torch.zeros(1)}):
        with pytest.raises(ValueError, match="the program takes"):
            interpret(program, inputs, rounded=False)


def test_values_are_freed_after_their_last_use() -> None:
    """A decoder's features are large: a walk must not keep them all."""

    class Chain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(6):
                x = torch.tanh(x)
            return x

    program = from_mil(to_mil(Chain(), torch.zeros(1, 2)))
    (given,) = program.inputs
    alive: list[Any] = []
    most = 0
    for _, tensor in walk(program, {given.name: torch.ones(1, 2)}, rounded=False):
        alive.append(weakref.ref(tensor))
        del tensor
        most = max(most, sum(reference() is not None for reference in alive))
    assert len(alive) == 7 and most <= 3
