"""A module as a Core ML program: torch.export, then coremltools."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from nas.core_ml.coremltools_package import import_coremltools, quiet_coremltools, without_deprecation_warnings
from nas.core_ml.formats import Precision

if TYPE_CHECKING:
    from coremltools.models import MLModel


def to_core_ml(
    module: nn.Module,
    example_inputs: tuple[Tensor, ...],
    *,
    input_names: tuple[str, ...] = ("latents",),
    output_names: tuple[str, ...] = ("frames",),
    precision: Precision = "float16",
) -> "MLModel":
    """`module` as an ML program for iOS 18 / macOS 15 and newer, for inputs of exactly these shapes. Runs anywhere.

    The model is not loaded: save it as `.mlpackage` and open that on a Mac to run it.

    Args:
        module: takes `example_inputs` and returns one tensor or a tuple of tensors; is put into evaluation mode.
        example_inputs: floating-point tensors, whose values do not matter.
        input_names: one per input.
        output_names: one per output.
        precision: of the program; inputs and outputs are float32 if it is, else float16.

    Raises:
        Exception: of torch.export where control flow depends on data; of coremltools (ValueError, RuntimeError,
            NotImplementedError) where an operation is unknown to it or a tensor has more than 5 axes.
    """
    program = export_program(module, example_inputs)
    inputs = zip(input_names, example_inputs, strict=True)
    with quiet_coremltools() as ct:
        return ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS18,
            compute_precision=_compute_precision(precision),
            inputs=[ct.TensorType(name=name, shape=tuple(example.shape)) for name, example in inputs],
            outputs=[ct.TensorType(name=name) for name in output_names],
            skip_model_load=True,
        )


def to_mil(module: nn.Module, *example_inputs: Tensor, precision: Precision = "float16") -> Any:
    """`module` as coremltools' own program in memory: the same operations, sooner than a model to save.

    Raises:
        Exception: as `to_core_ml`.
    """
    program = export_program(module, example_inputs)
    shapes = [tuple(example.shape) for example in example_inputs]
    with quiet_coremltools() as ct:
        return ct.convert(
            program,
            convert_to="milinternal",
            minimum_deployment_target=ct.target.iOS18,
            compute_precision=_compute_precision(precision),
            inputs=[ct.TensorType(name=f"x{index}", shape=shape) for index, shape in enumerate(shapes)],
        )


def export_program(module: nn.Module, example_inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """`module` in evaluation mode as a graph of operators without control flow, in the form that coremltools reads."""
    # torch.export notes the strides of its examples, and refuses those of a permuted tensor.
    example_inputs = tuple(example.contiguous() for example in example_inputs)
    with without_deprecation_warnings():
        exported = torch.export.export(module.eval(), example_inputs, strict=False)
        program: ExportedProgram = exported.run_decompositions({})
    _use_known_operators(program)
    return program


def _compute_precision(precision: Precision) -> Any:
    ct = import_coremltools()
    if precision == "mixed":
        return ct.transform.FP16ComputePrecision(op_selector=lambda operation: not _is_statistic(operation))
    return ct.precision.FLOAT16 if precision == "float16" else ct.precision.FLOAT32


def _is_statistic(operation: Any) -> bool:
    """Whether an operation of a MIL program serves nothing but the square root that a norm divides by."""
    if operation.op_type == "rsqrt":
        return True
    if operation.op_type not in ("add", "mul", "pow", "square", "reduce_mean"):
        return False
    users = [user for result in operation.outputs for user in result.child_ops]
    return bool(users) and all(_is_statistic(user) for user in users)


_SAME = {
    torch.ops.aten.concatenate.default: torch.ops.aten.cat.default,
    # By a whole number both repeat every element.
    torch.ops.aten._upsample_nearest_exact2d.vec: torch.ops.aten.upsample_nearest2d.vec,
}
"""Operators that coremltools does not know, and others that compute the same and that it knows."""


def _use_known_operators(program: ExportedProgram) -> None:
    """Replace what coremltools does not take by operators that it takes and that compute the same."""
    aten, graph = torch.ops.aten, program.graph
    for node in list(graph.nodes):
        if node.target is aten.alias.default:  # left by a permute that changes nothing
            node.replace_all_uses_with(node.args[0])
        elif node.target is aten._upsample_nearest_exact2d.vec and not _enlarges_by_whole_numbers(node):
            continue
        elif node.target in _SAME:
            node.target = _SAME[node.target]
        if node.target is aten.cat.default:
            filled = [part for part in node.args[0] if part.meta["val"].numel()]
            node.args = (filled, *node.args[1:])
    graph.eliminate_dead_code()
    program.graph_module.recompile()


def _enlarges_by_whole_numbers(node: torch.fx.Node) -> bool:
    before, after = node.args[0].meta["val"].shape, node.meta["val"].shape  # type: ignore[union-attr]
    return all(large % small == 0 for small, large in zip(before, after, strict=True))
