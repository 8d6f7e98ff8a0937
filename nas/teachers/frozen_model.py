"""A published model of somebody's class with their weights and configuration, which nothing here changes."""

import inspect
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import nn

from nas.machine.torchvision_operators import import_torchvision
from nas.teachers.weights import WeightFiles
from nas.terminal.errors import UserError

CONFIG_ERRORS = (
    *(TypeError, ValueError, LookupError, ArithmeticError, AttributeError, NameError, RuntimeError),
    *(AssertionError, MemoryError),
)
"""What the classes of diffusers raise for a configuration that makes no sense."""

_LARGEST = 8192
"""No size in a configuration is larger: a class would go on making layers for hours."""


class FrozenModel:
    """A model that is loaded at the first use of its weights, not before, and its skeleton without them."""

    class_name: ClassVar[str]
    """The model's class in diffusers."""
    gpu_dtype: ClassVar[torch.dtype] = torch.float32
    """What it computes in on a GPU: half precision where the published model is run in it. Elsewhere float32."""

    def __init__(self, name: str, source: str, licence: str, weights: WeightFiles, device: str | torch.device) -> None:
        self.name = name
        self.source = source
        """Where the weights are from: hub id and revision, "embedded", or a path."""
        self.licence = licence
        """Licence of the weights."""
        self.weights = weights
        self.device = torch.device(device)
        self.dtype = self.gpu_dtype if self.device.type == "cuda" else torch.float32

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights, read from the files: the model is not loaded for it."""
        return self.weights.digest

    def model_class(self) -> Any:
        """The class of the model, imported now."""
        import_torchvision()
        import diffusers

        return getattr(diffusers, self.class_name)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What of the files is not used or was chosen among several, one line each."""
        ignored = sorted(self.weights.config.keys() - self._arguments.keys())
        if not ignored:
            return self.weights.notes
        unknown = f"the configuration of {self.name} has {', '.join(ignored)}, which {self.class_name} does not know"
        return (*self.weights.notes, f"{unknown} in this version of diffusers: ignored")

    @cached_property
    def _arguments(self) -> dict[str, Any]:
        """The configuration as far as the class knows it; diffusers ignores the rest, too."""
        known = inspect.signature(self.model_class()).parameters
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
        return {name: value for name, value in self.weights.config.items() if takes_any or name in known}

    def build(self) -> nn.Module:
        """A fresh model of the teacher's class and configuration, on the current default device, without weights."""
        model: nn.Module = self.model_class()(**self._arguments)
        return model

    @cached_property
    def model(self) -> nn.Module:
        """The model with its weights, frozen."""
        from accelerate import init_empty_weights

        # Buffers that no file holds (wavelets, for example) are computed, parameters are not.
        with init_empty_weights(include_buffers=False):
            model = self.build()
        self.weights.load_into(model, self.dtype)
        return model.to(self.device).eval().requires_grad_(False)

    @cached_property
    def skeleton(self) -> nn.Module:
        """The model without weights, on the meta device: for shapes, parameters and operations.

        Raises:
            UserError: the configuration is not one of the class.
        """
        # Before the device changes: importing a class may make tensors, which have to be real ones (Cosmos' wavelets).
        self.model_class()
        try:
            _refuse_huge(self._arguments)
            with torch.device("meta"):
                return self.build().to("meta").eval().requires_grad_(False)
        except CONFIG_ERRORS as error:
            raise self.unfit_config(error) from error

    def unfit_config(self, reason: object) -> UserError:
        """The error for a configuration that makes no sense, or not with these weights."""
        reason = " ".join(str(reason).split())[:300]
        return UserError(
            f"the config.json of {self.weights.file} does not fit {self.name} ({reason}): use the one that "
            f"was published with the weights"
        )


def _refuse_huge(value: Any) -> None:
    """ValueError if a whole number or a list anywhere in a configuration is too large to be meant."""
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise ValueError(f"{value} is too large, expected at most {_LARGEST}")
    if isinstance(value, list | dict):
        if len(value) > _LARGEST:
            raise ValueError(f"a list of {len(value)} is too long, expected at most {_LARGEST}")
        for each in value.values() if isinstance(value, dict) else value:
            _refuse_huge(each)
