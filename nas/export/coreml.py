"""A module as a Core ML program: torch.export, then coremltools."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from nas.export.coremltools_package import import_coremltools, quiet_coremltools, without_deprecation_warnings
from nas.export.settings import Precision

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


def to_mil(module: nn.Module, example_input: Tensor, precision: Precision = "float16") -> Any:
    """`module` as coremltools' own program in memory: the same operations, sooner than a model to save.

    Raises:
        Exception: as `to_core_ml`.
    """
    program = export_program(module, (example_input,))
    with quiet_coremltools() as ct:
        return ct.convert(
            program,
            convert_to="milinternal",
            minimum_deployment_target=ct.target.iOS18,
            compute_precision=_compute_precision(precision),
            inputs=[ct.TensorType(name="x", shape=tuple(example_input.shape))],
        )


def export_program(module: nn.Module, example_inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """`module` in evaluation mode as a graph of operators without control flow, in the form that coremltools reads."""
    # torch.export notes the strides of its examples, and refuses those of a permuted tensor.
    example_inputs = tuple(example.contiguous() for example in example_inputs)
    with without_deprecation_warnings():
        exported = torch.export.export(module.eval(), example_inputs, strict=False)
        program: ExportedProgram = exported.run_decompositions({})
    _drop_aliases(program)
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


def _drop_aliases(program: ExportedProgram) -> None:
    """Replace `aten.alias` (left by a permute that changes nothing), which coremltools does not know, by its input."""
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten.alias.default:
            node.replace_all_uses_with(node.args[0])
            program.graph.erase_node(node)
    program.graph_module.recompile()
