"""Everything that diffusers' pipelines read from their VAE, taken from their source, is there."""

import ast
import importlib.util
import inspect
from pathlib import Path
from typing import Any

import pytest

from nas.model import TurboVAED
from search_spaces import PRESETS, LatentSpec, adapt

FAMILIES = {
    "wan": ("wan", LatentSpec(16, 8, 4, mean=(0.1,) * 16, std=(2.0,) * 16)),
    "hunyuan_video": ("hunyuan", LatentSpec(16, 8, 4, std=(1 / 0.476986,) * 16)),
    "cogvideo": ("cogvideox", LatentSpec(16, 8, 4, "leading_if_odd", std=(1 / 0.7,) * 16)),
    "ltx": ("ltx", LatentSpec(128, 32, 8, mean=(0.1,) * 128, std=(2.0,) * 128, causal=False)),
}
"""Folder of diffusers' pipelines -> teacher, and its latents."""

TAKE_THE_VAE = {"get_module_execution_device", "getattr", "hasattr"}
"""Functions that pipelines hand the whole VAE to, and that ask nothing of it that not every model has."""


def is_vae(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "vae" and ast.unparse(node) == "self.vae"


class Reads(ast.NodeVisitor):
    """What a source reads from `self.vae`: attributes, keys of its config, calls, and where it goes as a whole."""

    def __init__(self) -> None:
        self.attributes: set[str] = set()
        self.config: set[str] = set()
        self.calls: list[tuple[str, int, tuple[str, ...]]] = []
        self.elsewhere: set[str] = set()

    def visit_Attribute(self, node: ast.Attribute) -> None:
        inner = node.value
        if is_vae(inner):
            self.attributes.add(node.attr)
        elif isinstance(inner, ast.Attribute) and is_vae(inner.value) and inner.attr == "config":
            self.config.add(node.attr)
        elif is_vae(node):
            self.elsewhere.add("an expression")
        else:
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func
        name = ast.unparse(called)
        if isinstance(called, ast.Attribute) and is_vae(called.value):
            keywords = tuple(str(keyword.arg) for keyword in node.keywords)
            self.calls.append((called.attr, len(node.args), keywords))
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        if name in ("getattr", "hasattr") and isinstance(node.args[1], ast.Constant):
            source, read = ast.unparse(node.args[0]), str(node.args[1].value)
            self.attributes |= {read} if source == "self.vae" else set()
            self.config |= {read} if source == "self.vae.config" else set()
        self.elsewhere |= {name for argument in arguments if is_vae(argument)}
        for child in (called, *(argument for argument in arguments if not is_vae(argument))):
            self.visit(child)


def reads(source: str) -> Reads:
    found = Reads()
    found.visit(ast.parse(source))
    return found


def pipeline_sources(family: str) -> list[Path]:
    """Without importing diffusers' pipelines, which need transformers."""
    package = importlib.util.find_spec("diffusers")
    assert package is not None and package.origin is not None
    return sorted((Path(package.origin).parent / "pipelines" / family).glob("pipeline_*.py"))


def make_model(family: str) -> TurboVAED:
    teacher, latents = FAMILIES[family]
    model: TurboVAED = TurboVAED(adapt(PRESETS["taehv_wan"], latents, 16).to_dict(), teacher)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_what_pipelines_read_is_there(family: str) -> None:
    model = make_model(family)
    sources = pipeline_sources(family)
    assert len(sources) >= 3
    for path in sources:
        found = reads(path.read_text())
        assert found.attributes or not found.config, path
        missing = {name for name in found.attributes if not hasattr(model, name)}
        missing |= {f"config.{name}" for name in found.config if not hasattr(model.config, name)}
        assert not missing, path
        assert found.elsewhere <= TAKE_THE_VAE, path
        for name, positional, keywords in found.calls:
            method: Any = getattr(model, name)
            inspect.signature(method).bind(*range(positional), **dict.fromkeys(keywords))


def test_the_sources_are_understood() -> None:
    """The four families read what they are known to read: none of it is missed."""
    found = {family: [reads(path.read_text()) for path in pipeline_sources(family)] for family in FAMILIES}
    config = {family: set().union(*(each.config for each in sources)) for family, sources in found.items()}
    assert config["wan"] >= {"z_dim", "latents_mean", "latents_std", "scale_factor_temporal", "scale_factor_spatial"}
    assert config["hunyuan_video"] >= {"scaling_factor"}
    assert config["cogvideo"] >= {"block_out_channels", "temporal_compression_ratio", "scaling_factor"}
    assert config["ltx"] >= {"scaling_factor", "timestep_conditioning"}
    attributes = {family: set().union(*(each.attributes for each in sources)) for family, sources in found.items()}
    assert attributes["ltx"] >= {"latents_mean", "latents_std", "spatial_compression_ratio", "enable_tiling", "dtype"}
    assert attributes["hunyuan_video"] >= {"temporal_compression_ratio", "spatial_compression_ratio", "encode"}
    calls = {(name, positional) for each in found["ltx"] for name, positional, _ in each.calls}
    assert calls >= {("decode", 2), ("encode", 1)}


def test_every_way_to_read_is_seen() -> None:
    source = """
a = 2 ** len(self.vae.new) if getattr(self, "vae", None) else 8
b = getattr(self.vae.config, "told", False) or hasattr(self.vae, "asked")
c = self.vae.decode(z, self.vae.config.factor, return_dict=False)[0]
d = helper(vae=self.vae)
e = self.vae
"""
    found = reads(source)
    assert found.attributes == {"new", "asked", "decode", "config"} and found.config == {"told", "factor"}
    assert found.calls == [("decode", 2, ("return_dict",))]
    assert found.elsewhere == {"hasattr", "helper", "an expression"}
