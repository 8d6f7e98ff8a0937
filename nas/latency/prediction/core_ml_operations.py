"""What a decoder executes in Core ML: the operations of its converted program, nothing computed. Needs no Mac."""

import copy

import torch
from torch import Tensor, nn

from nas.core_ml.part_reports import inspect_parts
from nas.core_ml.parts import decoder_parts
from nas.core_ml.program import HIGHEST_RANK
from nas.core_ml.steps import Step, module_steps
from nas.latency.prediction.cost_classes import CostClass
from nas.latency.prediction.operations import Convolution, Operation, UnknownOperationError
from nas.latency.record import MeasurementFailedError, Workload
from search_spaces import Decoder, LatentSpec

_NAMES: dict[CostClass, str] = {
    "conv": "conv conv_transpose",
    "matmul": "einsum linear matmul scaled_dot_product_attention",
    "elementwise": """
        abs add batch_norm cast clip elu equal erf exp gelu greater inverse leaky_relu less log maximum minimum mul
        pow prelu real_div relu relu6 rsqrt select sigmoid sigmoid_hard sign silu softplus sqrt square sub tanh
        thresholded_relu
    """,
    "reduction": "instance_norm layer_norm reduce_l2_norm reduce_max reduce_mean reduce_min reduce_sum softmax",
    "movement": """
        concat crop expand_dims gather identity pad pixel_shuffle pixel_unshuffle reshape reverse slice_by_index
        slice_by_size split squeeze stack tile transpose
    """,
    "resize": "upsample_bilinear upsample_nearest_neighbor",
}

COST_CLASS_OF: dict[str, CostClass] = {
    name: cost_class for cost_class, names in _NAMES.items() for name in names.split()
}
"""Cost class of each operation by its name in Core ML."""


def list_core_ml_operations(module: nn.Module, spec: LatentSpec, workload: Workload) -> list[Operation]:
    """Every operation of the converted `module(latents)`.

    A `Decoder` is converted part by part, what is known about a part is not found out again. Any other module is
    converted whole, as one stage "decoder".

    Args:
        module: takes latents `(1, c, t, h, w)`; may be on the meta device.
        spec: of the latents.
        workload: the decode.

    Raises:
        ValueError: the workload is not on the grid of the latents.
        MeasurementFailedError: it cannot be converted.
        UnknownOperationError: an operation is in none of the tables here; it is never counted as free.
    """
    if not isinstance(module, Decoder):
        return [operation_of(step, "decoder") for step in _whole(module, spec, workload)]
    parts = decoder_parts(module.config, workload.num_frames, workload.height, workload.width)
    reports = inspect_parts(part for _, part in parts)
    for stage, part in parts:
        if problem := reports[part].problem:
            raise MeasurementFailedError(f"{stage}: {part.config.name}: {problem}")
    return [operation_of(step, stage) for stage, part in parts for step in reports[part].steps]


def _whole(module: nn.Module, spec: LatentSpec, workload: Workload) -> tuple[Step, ...]:
    latents = torch.zeros(1, *spec.latent_shape(workload.num_frames, workload.height, workload.width))
    try:
        steps = module_steps(_with_values(module), latents)
    except Exception as error:  # torch.export and coremltools raise many kinds; none of them is lost
        reason = " ".join(str(error).split())[:200]
        raise MeasurementFailedError(f"it cannot be converted to Core ML: {reason}") from error
    high = sorted({step.op_type for step in steps for shape in step.results if len(shape) > HIGHEST_RANK})
    if high:
        reason = f"tensors of more than {HIGHEST_RANK} axes in {', '.join(high)}"
        raise MeasurementFailedError(f"it cannot be converted to Core ML: {reason}")
    return steps


def _with_values(module: nn.Module) -> nn.Module:
    """A copy on the CPU; what was on the meta device has some value."""

    def filled(tensor: Tensor) -> Tensor:
        return torch.full(tensor.shape, 0.5) if tensor.is_meta else tensor.float().cpu()

    copied: nn.Module = copy.deepcopy(module)._apply(filled)  # type: ignore[no-untyped-call]
    return copied


def operation_of(step: Step, stage: str) -> Operation:
    """A step of a program as an operation that is charged for; `UnknownOperationError` if it has no cost class."""
    cost_class = COST_CLASS_OF.get(step.op_type)
    if cost_class is None:
        raise UnknownOperationError(
            f"no cost is known for Core ML's operation {step.op_type} (in '{stage}'): build the decoder from other "
            f"operations, or give this one a cost class in nas/latency/prediction/core_ml_operations.py"
        )
    convolution = _geometry(step) if cost_class == "conv" else None
    channels_in = convolution.input_shape[1] // step.groups if convolution else 0
    return Operation(
        name=step.op_type,
        cost_class="depthwise_conv" if step.groups > 1 and channels_in == 1 else cost_class,
        stage=stage,
        macs=step.macs,
        reads=tuple(shape for _, shape in step.inputs),
        writes=step.results,
        channels_in=channels_in,
        convolution=convolution,
    )


def _geometry(step: Step) -> Convolution:
    (out,) = step.results
    return Convolution(out[1], step.groups, step.input("weight")[2:], step.input("x"))
