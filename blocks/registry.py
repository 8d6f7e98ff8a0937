"""The registry of decoder parts: a part is one file in this folder with a class under `@register_block`.

    @register_block("dense_conv3d", label="conv3d")
    class DenseConv3d(Block):
        @dataclass(frozen=True)
        class Config(BlockConfig):
            kernel_size: int = choice(3, 5)

        def __init__(self, config: Config, in_channels: int, out_channels: int) -> None: ...

        def forward(self, x: Tensor, time: TimeContext) -> Tensor: ...

The file's name is the registered name. Every option of every registered part is searched and tested. A *block* in the
narrow sense is a part with the role `block`; the names of these functions mean parts of any role.
"""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, Literal, Self, TypeVar, cast, final, get_args

from torch import Tensor, nn

from blocks.time_context import Layout, TimeContext

Role = Literal["stem", "block", "upsampler", "head", "shortcut"]
"""What a part does in a decoder. Constructor arguments after `config`, by role:

stem       in_channels, out_channels: the first convolution, latents -> features
block      in_channels, out_channels: same grid in and out
upsampler  in_channels, out_channels, temporal_factor, spatial_factor: features on a finer grid
head       in_channels, spatial_factor: features -> RGB frames, `spatial_factor` times larger
shortcut   in_channels, temporal_factor, spatial_factor, leading (whether the first latent frame may become one
           frame): latents -> RGB frames, added to the head's; has `fit`, which finds its weights without training
"""

Option = str | int | float | bool
"""A value that an option may take: a JSON primitive."""


def choice(*options: Option) -> Any:
    """Declare an option of a `BlockConfig`: the first is the default, all of them are searched and tested."""
    if not options or len(set(options)) != len(options):
        raise ValueError(f"choice() needs distinct options, got {options}")
    wrong = [option for option in options if not isinstance(option, (str, int, float, bool))]
    if wrong:
        raise ValueError(f"options must be str, int, float or bool (they go into JSON), got {wrong[0]!r}")
    return dataclasses.field(default=options[0], metadata={"choices": options})


def published(default: Option, *others: Option) -> Any:
    """Declare an option that no search varies: the others are there for weights that were published with them.

    They are tested like all options. In JSON it stands only where it is not the default.
    """
    field = choice(default, *others)
    return dataclasses.field(default=default, metadata={**field.metadata, "published": True})


@dataclass(frozen=True)
class BlockConfig:
    """The options of one part. Frozen, hashable, JSON primitives only; knows the name of the part that it builds."""

    name: ClassVar[str] = ""
    """Registered name of the part; set by `register_block`."""

    @classmethod
    def choices(cls) -> dict[str, tuple[Option, ...]]:
        """Every option that is searched with the values it may take, the default first."""
        return {name: values for name, values in cls.options().items() if name not in cls._published()}

    @classmethod
    def options(cls) -> dict[str, tuple[Option, ...]]:
        """The same with those that no search varies (`published`)."""
        return {field.name: field.metadata["choices"] for field in dataclasses.fields(cls)}

    @classmethod
    def _published(cls) -> set[str]:
        return {field.name for field in dataclasses.fields(cls) if "published" in field.metadata}

    @classmethod
    def all_configs(cls) -> Iterator[Self]:
        """Every combination of searched options, the default first."""
        names = list(cls.choices())
        for values in product(*cls.choices().values()):
            yield cls(**dict(zip(names, values, strict=True)))

    def __post_init__(self) -> None:
        for option, allowed in self.options().items():
            value = getattr(self, option)
            if not any(value == each and type(value) is type(each) for each in allowed):
                raise ValueError(f"{self.name}: {option} must be one of {', '.join(map(repr, allowed))}, got {value!r}")

    def to_dict(self) -> dict[str, Option]:
        """`{"name": ..., option: value, ...}`."""
        plain = {name for name in self._published() if getattr(self, name) == self.options()[name][0]}
        values = {name: value for name, value in dataclasses.asdict(self).items() if name not in plain}
        return {"name": self.name, **values}

    def searched(self) -> Self:
        """The same with the default in every option that no search varies."""
        return dataclasses.replace(self, **{name: self.options()[name][0] for name in self._published()})


class Block(nn.Module):
    """A part of a decoder, of any role. `time` is all that it may know about the frames before and after."""

    name: ClassVar[str]
    """Registered name; set by `register_block`."""
    label: ClassVar[str]
    """Short form of the name in printed architectures; set by `register_block`."""
    role: ClassVar[Role]
    """What the part does in a decoder; set by `register_block`."""
    Config: ClassVar[type[BlockConfig]]
    """Options of the part: its own nested frozen dataclass."""

    input_layout: ClassVar[Layout] = "video"
    """Layout of the features that `forward` takes."""
    output_layout: ClassVar[Layout] = "video"
    """Layout of the features that `forward` returns."""
    causal: ClassVar[bool] = True
    """Whether, in causal mode, no output frame depends on a later input frame."""

    normed: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Pairs of attribute names, a convolution and the norm right after it, for `rewrites.fold_norms`."""

    @classmethod
    def supports_factor(cls, spatial_factor: int) -> bool:
        """Whether the part can make frames that are `spatial_factor` times as high and wide. Asked of heads only."""
        return True

    @classmethod
    def width_multiple(cls, spatial_factor: int) -> int:
        """What the channels in must be a multiple of where the part upsamples by this factor. Asked of heads only."""
        return 1

    @final
    @classmethod
    def least_width(cls, spatial_factor: int) -> int:
        """The fewest channels in that a head is given; it follows from `width_multiple`.

        A head that needs a multiple moves an equal share of its channels to each output position: four at least are
        left there, since fewer cannot make three colours.
        """
        multiple = cls.width_multiple(spatial_factor)
        return 4 * multiple if multiple > 1 else 1

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """Features in `input_layout` to features in `output_layout`."""
        raise NotImplementedError(f"{type(self).__name__} has to define forward(x, time)")


class Shortcut(Block):
    """A part from latents to frames beside the whole decoder (role `shortcut`), which is fitted before training."""

    def fit(self, samples: Iterable[tuple[Tensor, Tensor]], *, drops_leading: bool) -> None:
        """Set the weights so that the part alone comes as near to the frames as it can.

        Args:
            samples: pairs of latents `(b, c, t, h, w)` and frames `(b, 3, t', h', w')` in [-1, 1].
            drops_leading: whether the first latent frame of these clips becomes one frame.
        """
        raise NotImplementedError(f"{type(self).__name__} has to define fit(samples, drops_leading=...)")


class NotBuildableError(ValueError):
    """A part cannot be built, or does not run, at the widths and factors of its place in a decoder."""


B = TypeVar("B", bound=type[Block])
_REGISTRY: dict[str, type[Block]] = {}


def register_block(name: str, *, label: str, role: Role = "block") -> Callable[[B], B]:
    """Class decorator: make a part known under `name`; `label` is its short form in printed architectures.

    Raises:
        ValueError: the name is taken, the role is unknown, or `Config` is not a frozen dataclass made of `choice(...)`.
    """

    def register(cls: B) -> B:
        if name in _REGISTRY:
            taken_by = _REGISTRY[name]
            raise ValueError(f"part name '{name}' is taken by {taken_by.__module__}.{taken_by.__qualname__}")
        if role not in get_args(Role):
            raise ValueError(f"{name}: role must be one of {', '.join(get_args(Role))}, got '{role}'")
        if (role == "shortcut") != issubclass(cls, Shortcut):
            raise ValueError(f'{name}: a part is a shortcut by role="shortcut" and `class ...(Shortcut)` together')
        _check_config(name, cls)
        # The config carries its part's name, so that a config alone says what to build.
        cls.Config.name = name
        cls.name, cls.label, cls.role = name, label, role
        _REGISTRY[name] = cls
        return cls

    return register


def _check_config(name: str, cls: type[Block]) -> None:
    config = cls.__dict__.get("Config")
    if not (isinstance(config, type) and issubclass(config, BlockConfig) and config is not BlockConfig):
        raise ValueError(f"{name}: the class needs its own nested `class Config(BlockConfig)`")
    if not cast(Any, config).__dataclass_params__.frozen or "__dataclass_params__" not in config.__dict__:
        raise ValueError(f"{name}: Config must be decorated with @dataclass(frozen=True)")
    if config.name:
        raise ValueError(
            f"{name}: the class needs its own nested `class Config(BlockConfig)`, this one is that of '{config.name}'"
        )
    plain = [field.name for field in dataclasses.fields(config) if "choices" not in field.metadata]
    if plain:
        raise ValueError(f"{name}: declare option '{plain[0]}' with choice(...), so that it is searched and tested")


def get_block(name: str) -> type[Block]:
    """The class registered under `name`; ValueError with the nearest name and the list if there is none."""
    if name not in _REGISTRY:
        near = difflib.get_close_matches(name, _REGISTRY, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ValueError(f"unknown part '{name}': {hint}known: {', '.join(sorted(_REGISTRY))}")
    return _REGISTRY[name]


def list_blocks(role: Role | None = None) -> list[str]:
    """Registered names, sorted; only those of one role if given."""
    return sorted(name for name, cls in _REGISTRY.items() if role in (None, cls.role))


def block_config(data: dict[str, Option]) -> BlockConfig:
    """Inverse of `BlockConfig.to_dict`.

    Raises:
        ValueError: no such part is registered, it has no such option, or the option does not take this value.
    """
    options = {key: value for key, value in data.items() if key != "name"}
    config = get_block(str(data["name"])).Config
    unknown = options.keys() - config.options().keys()
    if unknown:
        known = ", ".join(config.options()) or "none"
        raise ValueError(f"{data['name']} has no option '{min(unknown)}': known: {known}")
    return config(**options)


def build_block(config: BlockConfig, in_channels: int, **geometry: int) -> Block:
    """The part that `config` describes, with fresh weights; `geometry` as its role demands (see `Role`).

    Raises:
        NotBuildableError: the part cannot be built for this geometry; names both, and why.
    """
    constructor = cast(Callable[..., Block], get_block(config.name))
    try:
        return constructor(config, in_channels, **geometry)
    except Exception as error:  # whatever a part raises, it is not there for this geometry
        given = ", ".join(f"{key}={value}" for key, value in {"in_channels": in_channels, **geometry}.items())
        raise NotBuildableError(f"{config.name} cannot be built with {given}: {describe_error(error)}") from error


def describe_error(error: Exception) -> str:
    """The message of an error in one line, with the error's type unless it is a ValueError with a message."""
    text = " ".join(str(error).split())[:400]
    return text if text and isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
