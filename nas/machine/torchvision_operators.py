"""Makes torchvision importable beside a build of torch that its compiled operators were not made for.

The registry's torchvision is built for CUDA; beside a CPU build of torch its extension does not load and the import
fails with "operator torchvision::nms does not exist". Nothing here needs those operators (lpips and diffusers only
import the package), so declaring their schemas is enough.
"""

import importlib.util
import sys

import torch

_MISSING = "operator torchvision::nms does not exist"
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: torch.library.Library | None = None


def import_torchvision() -> None:
    """Import torchvision; where exactly this failure occurs, declare the two operators and import it again.

    Call it before the first import of anything that imports torchvision (diffusers, lpips). Where it is not installed
    there is nothing to do: diffusers does without it, and lpips is not installed without it.
    """
    global _library
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        import torchvision
    except RuntimeError as error:
        if _MISSING not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        # The declarations last as long as this object.
        _library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for schema in _SCHEMAS:
            _library.define(schema)  # type: ignore[no-untyped-call]
        import torchvision  # noqa: F401
