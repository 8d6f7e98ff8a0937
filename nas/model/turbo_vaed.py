"""TurboVAED: a finished student as a diffusers model, in place of the teacher's decoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from nas.machine.torchvision_operators import import_torchvision
from nas.model.decoding import DecodingModel
from nas.model.pipeline_config import (
    GEOMETRY_NAMES,
    SCALING_NAMES,
    UNKNOWN_SCALING,
    PipelineConfig,
    Scaling,
    check_replaces,
    geometry_config,
    known_scaling,
    scaling_of,
)
from nas.model.published import RELEASES, load_published
from nas.terminal.errors import UserError
from search_spaces import Decoder, DecoderConfig

import_torchvision()

from diffusers import AutoModel, ConfigMixin, ModelMixin  # noqa: E402
from diffusers.configuration_utils import register_to_config  # noqa: E402
from diffusers.models.autoencoders.vae import DecoderOutput  # noqa: E402
from diffusers.utils.accelerate_utils import apply_forward_hook  # noqa: E402

_ENCODER = "encoder"
"""Folder of a saved model that holds the VAE whose encoder it uses."""


# A pipeline that loads one looks for ModelMixin by that name in this module.
class TurboVAED(DecodingModel, ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A student decoder with the loading, saving and calling conventions of diffusers' autoencoders.

    Latents are `(b, c, t, h, w)`, raw, exactly as the teacher's `decode` takes them: a pipeline scales them back before
    it calls `decode`, by what `config` says. Frames are `(b, 3, t', h', w')`, RGB in [-1, 1]. It has no encoder of its
    own: `attach` keeps that of the VAE whose place it takes.

    Args:
        architecture: of the decoder, `DecoderConfig.to_dict()`.
        teacher: name of the teacher that it was distilled from.
        scaling: of the latents, `Scaling.to_dict()`, where the architecture does not hold their statistics.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, architecture: dict[str, Any], teacher: str, scaling: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.decoder = Decoder(DecoderConfig.from_dict(architecture))
        # In a tuple it is no submodule: its weights are not the student's, and are not saved as such.
        self._attached: tuple[Any, ...] = ()

    @classmethod
    def from_published(cls, path_or_repo: str | Path, preset: str) -> Self:
        """A published decoder with the weights that its authors released.

        Args:
            path_or_repo: the released file or a folder with it, or `owner/name@revision` on the hub, where the revision
                has all its 40 digits.
            preset: `turbo_vaed_hunyuan`, `turbo_vaed_cog`, `turbo_vaed_dc`, `turbo_vaed_ltx` (arXiv 2508.09136),
                `flash_vaed_wan` (arXiv 2602.19161) or `taehv_wan`.

        Raises:
            UserError: there is no such file, it cannot be read, or it is not of this preset.
        """
        decoder, scaling = load_published(path_or_repo, preset)
        with torch.device("meta"):
            model: Self = cls(decoder.config.to_dict(), RELEASES[preset].teacher, scaling and scaling.to_dict()).eval()
        model.decoder = decoder
        return model

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Any:
        """As of every diffusers model; an encoder that was saved with a local one is attached again."""
        found = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        folder = Path(pretrained_model_name_or_path, kwargs.get("subfolder") or "", _ENCODER)
        if (folder / "config.json").is_file():
            same = {name: kwargs[name] for name in ("torch_dtype", "variant", "use_safetensors") if name in kwargs}
            model = found[0] if isinstance(found, tuple) else found
            model.attach_encoder(AutoModel.from_pretrained(str(folder), **same))
        return found

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str = "10GB",
        **kwargs: Any,
    ) -> None:
        """As of every diffusers model; an attached VAE goes to a folder in it, for its encoder."""
        # Named here because pipelines hand on what they see in the signature.
        options = {"safe_serialization": safe_serialization, "variant": variant, "max_shard_size": max_shard_size}
        for vae in self._attached:
            vae.save_pretrained(Path(save_directory, _ENCODER), **options)
        super().save_pretrained(save_directory, **options, **kwargs)

    @property
    def config(self) -> Any:
        """What the model was made with, and everything that pipelines read from the config of its teacher.

        The latter follows from the latents that it was made for, or is that of the attached VAE; it is not saved.
        """
        scaling = self._scaling()
        derived = geometry_config(self.decoder.config) | ({} if scaling is None else scaling.to_dict())
        inverted = any(vae.config.get("invert_scale_latents") for vae in self._attached)
        return PipelineConfig({**derived, "invert_scale_latents": inverted, **self._internal_dict})

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As of every diffusers model, also from a `config` with what follows from the rest."""
        derived = {*GEOMETRY_NAMES, *SCALING_NAMES, "invert_scale_latents"}
        return super().extract_init_dict({key: config_dict[key] for key in config_dict if key not in derived}, **kwargs)

    def _scaling(self) -> Scaling | None:
        """That of the attached VAE, or what is known without it; None if that is nothing."""
        if self._attached:
            return scaling_of(self._attached[0])
        saved = self._internal_dict.get("scaling")
        latents = self.decoder.config.latents
        return Scaling.from_dict(saved) if saved else known_scaling(latents, self._internal_dict["teacher"])

    @property
    def spatial_compression_ratio(self) -> int:
        """Pixels per latent position along height and along width."""
        return self.decoder.config.latents.spatial

    @property
    def temporal_compression_ratio(self) -> int:
        """Frames per latent frame, the leading one aside."""
        return self.decoder.config.latents.temporal

    @property
    def temperal_downsample(self) -> list[bool]:
        """For each halving of the teacher's encoder in space whether it is one in time, too (diffusers' spelling)."""
        halvings: list[bool] = geometry_config(self.decoder.config)["temperal_downsample"]
        return halvings

    @property
    def latents_mean(self) -> Tensor:
        """Mean of each channel, `(c)`, as LTX's pipelines take it; zeros where `scaling_factor` is all."""
        return self._statistic("latents_mean", 0.0)

    @property
    def latents_std(self) -> Tensor:
        """Standard deviation of each channel, `(c)`, likewise; ones where `scaling_factor` is all."""
        return self._statistic("latents_std", 1.0)

    def _statistic(self, name: str, default: float) -> Tensor:
        scaling = self._scaling()
        if scaling is None:
            raise UserError(UNKNOWN_SCALING)
        values = scaling.to_dict()[name] or [default] * self.decoder.config.latents.channels
        return torch.tensor(values, device=self.device)

    @property
    def teacher_vae(self) -> Any:
        """The attached VAE, whole and unchanged.

        Raises:
            UserError: none is attached.
        """
        if not self._attached:
            raise UserError(
                "this model is a decoder and has no encoder attached: use model.attach(pipe) in place of "
                "pipe.vae = model, or model.attach_encoder(VAE) with the VAE that it was distilled from"
            )
        return self._attached[0]

    def attach(self, pipe: Any) -> Any:
        """Take the place of a pipeline's VAE, whose encoder is kept for `encode`; returns the pipeline.

        The model goes to the device that the VAE is on, and keeps its own precision.

        Raises:
            UserError: the VAE has other latents, or is being offloaded.
        """
        if pipe.vae is self:
            return pipe
        if hasattr(pipe.vae, "_hf_hook"):
            raise UserError("this pipeline's VAE is being offloaded: attach first, then call enable_..._offload()")
        for vae in pipe.vae._attached if isinstance(pipe.vae, TurboVAED) else (pipe.vae,):
            self.attach_encoder(vae)
        self.to(pipe.vae.device)
        pipe.vae = self
        return pipe

    def attach_encoder(self, vae: Any, **kwargs: Any) -> Self:
        """Use the encoder of this VAE for `encode`. It moves and changes precision with the model from now on.

        Args:
            vae: the VAE that the model was distilled from, or the folder that it is in.
            kwargs: how to load it from there, such as `subfolder="vae"`.

        Raises:
            UserError: it has other latents, or there is no such folder.
        """
        if isinstance(vae, str | Path):
            if not Path(vae).is_dir():
                raise UserError(f"{vae} is not a folder: load a VAE of the hub with diffusers, and give it as it is")
            vae = AutoModel.from_pretrained(str(vae), **kwargs)
        self._attached = ()
        check_replaces(vae, self.decoder.config.latents, self._scaling())
        self._attached = (vae,)
        return self

    @apply_forward_hook  # type: ignore[untyped-decorator]
    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """Video `(b, 3, t', h', w')` in [-1, 1] -> what the attached VAE makes of it.

        Raises:
            UserError: none is attached.
        """
        vae = self.teacher_vae
        home = vae.device
        # Its weights are elsewhere only where the decoder's are offloaded layer by layer.
        vae.to(x.device)
        try:
            return vae.encode(x.to(vae.dtype), return_dict=return_dict)
        finally:
            vae.to(home)

    def forward(
        self,
        sample: Tensor,
        sample_posterior: bool = False,
        return_dict: bool = True,
        generator: torch.Generator | None = None,
    ) -> DecoderOutput | tuple[Tensor]:
        """Video -> video through the attached VAE's encoder and this decoder, as of diffusers' autoencoders."""
        posterior = self.encode(sample).latent_dist
        latents = posterior.sample(generator=generator) if sample_posterior else posterior.mode()
        output: DecoderOutput | tuple[Tensor] = self.decode(latents, return_dict=return_dict)
        return output

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move and convert the attached VAE, too."""
        super()._apply(fn, recurse)
        for vae in self._attached:
            vae._apply(fn)
        return self
