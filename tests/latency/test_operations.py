"""Operations of a decoder: counted exactly, complete, and by stage."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.latency import list_operations
from nas.latency.prediction.operations import Convolution, Operation, UnknownOperationError
from nas.machine.torchvision_operators import import_torchvision
from search_spaces import PRESETS, Decoder, DecoderConfig, adapt
from tests.support.small_modules import Calls

NARROW = adapt(PRESETS["turbo_vaed_ltx"], PRESETS["turbo_vaed_ltx"].latents, width_divisor=8)


class TwoStages(nn.Module):
    """A stem, a list of two blocks, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(4, 8, 3, padding=1)
        self.blocks = nn.ModuleList([nn.Conv3d(8, 8, 3, padding=1), nn.SiLU()])
        self.head = nn.Conv3d(8, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(b, 4, t, h, w)` -> `(b, 12, t, h, w)`."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(x)
        return out


def on_meta(config: DecoderConfig) -> Decoder:
    with torch.device("meta"):
        return Decoder(config)


def test_a_convolution_is_counted_exactly() -> None:
    (operation,) = list_operations(nn.Conv3d(4, 6, (3, 5, 1), padding=(1, 2, 0)), (1, 4, 7, 8, 9))
    positions = 7 * 8 * 9
    assert operation.bytes_read == 2 * (4 * positions + 6 * 4 * 15 + 6)
    assert operation.bytes_written == 2 * 6 * positions
    assert operation == Operation(
        name="convolution",
        cost_class="conv",
        stage="Conv3d",
        macs=positions * 6 * 4 * 15,
        reads=((1, 4, 7, 8, 9), (6, 4, 3, 5, 1), (6,)),
        writes=((1, 6, 7, 8, 9),),
        channels_in=4,
        convolution=Convolution(channels_out=6, groups=1, kernel=(3, 5, 1), input_shape=(1, 4, 7, 8, 9)),
    )


def test_cost_classes_of_convolutions() -> None:
    depthwise, pointwise, grouped = nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1, groups=2)
    transposed = nn.ConvTranspose2d(8, 6, 4, stride=2, groups=2)
    found = list_operations(nn.Sequential(depthwise, pointwise, grouped, transposed), (2, 8, 10, 10))
    assert [(each.cost_class, each.channels_in) for each in found] == [
        ("depthwise_conv", 1),
        ("conv", 8),
        ("conv", 2),
        ("conv", 4),
    ]
    assert [each.macs for each in found] == [
        2 * 64 * 8 * 9,
        2 * 64 * 8 * 4,
        2 * 64 * 8 * 2,
        2 * 64 * 8 * 3 * 16,
    ]
    assert [each.stage for each in found] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (TwoStages(), (1, 4, 3, 8, 8)),
        (nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, stride=2)), (2, 3, 9, 9)),
        (nn.Sequential(nn.Linear(6, 10), nn.GELU(), nn.Linear(10, 4, bias=False)), (2, 5, 6)),
        (nn.Conv3d(8, 8, 5, padding=2, groups=8), (1, 8, 5, 6, 6)),
        (Calls(lambda x: x @ x.transpose(1, 2)), (2, 5, 6)),
        (Decoder(NARROW), (1, 128, 1, 2, 2)),
    ],
)
def test_macs_equal_fvcore(module: nn.Module, shape: tuple[int, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(module.eval(), torch.zeros(shape))
        analysis.unsupported_ops_warnings(False)
        counts = analysis.by_operator()
    expected = sum(count for name, count in counts.items() if name in ("conv", "linear", "matmul", "bmm"))
    assert sum(operation.macs for operation in list_operations(module, shape)) == expected > 0


@pytest.mark.parametrize(
    ("function", "classes"),
    [
        (lambda x: functional.interpolate(x, scale_factor=2.0, mode="nearest"), {"resize"}),
        (lambda x: functional.interpolate(x, scale_factor=2.0, mode="nearest-exact"), {"resize"}),
        (lambda x: functional.interpolate(x, scale_factor=2.0, mode="bilinear"), {"resize"}),
        (lambda x: functional.interpolate(x[None], scale_factor=2.0, mode="trilinear"), {"resize"}),
        (lambda x: functional.pixel_shuffle(x, 2), {"movement"}),
        (lambda x: functional.pixel_unshuffle(x, 2), {"movement"}),
        (lambda x: torch.cat([x[:1], x]), {"movement"}),
        (lambda x: torch.stack([x, x]), {"movement"}),
        (lambda x: x.repeat(2, 1, 1, 1), {"movement"}),
        (lambda x: x.repeat_interleave(2, dim=0), {"movement"}),
        (lambda x: functional.pad(x, (1, 1, 0, 0)), {"movement"}),
        (lambda x: functional.pad(x, (1, 1, 1, 1), mode="replicate"), {"movement"}),
        (lambda x: functional.pad(x, (1, 1, 1, 1), mode="reflect"), {"movement"}),
        (lambda x: x.permute(0, 2, 3, 1).contiguous(), {"movement"}),
        (lambda x: x.permute(0, 2, 3, 1).reshape(2, -1), {"movement"}),
        (lambda x: x.flip(1).roll(1, 0), {"movement"}),
        (lambda x: x.clone().copy_(x), {"movement"}),
        (lambda x: x[:, torch.tensor([0, 1], device=x.device)], {"movement"}),
        (lambda x: x.permute(0, 2, 3, 1)[:1, ::2].expand(3, -1, -1, -1), set()),
        (
            lambda x: torch.stack(x.unbind(1)[:2]) + x.chunk(2)[0].unflatten(1, (2, 2)).sum(),
            {"movement", "elementwise", "reduction"},
        ),
        (lambda x: x.double().half(), set()),
        (lambda x: functional.silu(x), {"elementwise"}),
        (lambda x: functional.relu(x, inplace=True), {"elementwise"}),
        (lambda x: functional.gelu(x).tanh().sigmoid().exp().sqrt().rsqrt().abs(), {"elementwise"}),
        (lambda x: functional.leaky_relu(functional.elu(functional.hardswish(x))), {"elementwise"}),
        (lambda x: (x + 1 - x) * x / 2, {"elementwise"}),
        (lambda x: (-x).pow(2).clamp(0, 1).clamp_min(0.5), {"elementwise"}),
        (lambda x: torch.where(x > 0, x, 0.1 * x).masked_fill(x < 0, 0.0), {"elementwise"}),
        (lambda x: x.mean(1, keepdim=True), {"reduction"}),
        (lambda x: x.var(1) + x.std(1) + x.amax(1), {"reduction", "elementwise"}),
        (lambda x: functional.normalize(x, dim=1), {"reduction", "elementwise"}),
        (lambda x: functional.layer_norm(x, (8,)), {"reduction"}),
        (lambda x: functional.group_norm(x, 2), {"reduction"}),
        (lambda x: functional.softmax(x, dim=1), {"reduction"}),
        (lambda x: functional.adaptive_avg_pool2d(x, 2), {"reduction"}),
        (lambda x: functional.linear(x, x.new_ones(3, 8), x.new_ones(3)), {"matmul"}),
        (lambda x: torch.einsum("bchw,bdhw->bcd", x, x), {"matmul"}),
    ],
)
def test_usual_operations_are_known(function: Callable[[Tensor], Tensor], classes: set[str]) -> None:
    found = {operation.cost_class for operation in list_operations(Calls(function), (2, 4, 8, 8))}
    assert found == classes


def test_attention_is_counted() -> None:
    def attend(x: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(x, x, x)

    found = list_operations(Calls(attend), (2, 3, 10, 16))
    assert sum(operation.macs for operation in found) == 2 * (2 * 3 * 10 * 10 * 16)
    assert all(operation.macs == 0 for operation in found if operation.cost_class != "matmul")


def test_an_unknown_operation_is_named_and_never_free() -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1), Calls(lambda x: torch.fft.rfft2(x).real))
    with pytest.raises(UnknownOperationError, match=r"aten\._fft_r2c\.default \(in '1'\)"):
        list_operations(module, (1, 3, 8, 8))


def test_expanded_inputs_are_read_once_and_casts_are_free() -> None:
    (operation,) = list_operations(Calls(lambda x: x + x[:, :1].expand(-1, 4, -1)), (1, 4, 10))
    assert (operation.bytes_read, operation.bytes_written) == (2 * (40 + 10), 2 * 40)
    assert [each.name for each in list_operations(Calls(lambda x: x.to(torch.bfloat16) + 1), (4,))] == ["add"]


def test_copies_above_rank_five_are_a_cost_class_of_their_own() -> None:
    def shuffle(x: Tensor) -> Tensor:
        b, c, t, h, w = x.shape
        parts = x.view(b, c // 8, 2, 2, 2, t, h, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
        return parts.reshape(b, c // 8, 2 * t, 2 * h, 2 * w)

    def decoupled(x: Tensor) -> Tensor:
        b, c, t, h, w = x.shape
        return x.view(b, c // 2, 2, t, h, w).permute(0, 3, 2, 1, 4, 5).reshape(b * t * 2, c // 2, h, w)

    shape = (1, 16, 3, 4, 4)
    assert [each.cost_class for each in list_operations(Calls(shuffle), shape)] == ["high_rank_movement"]
    assert [each.cost_class for each in list_operations(Calls(decoupled), shape)] == ["movement"]


def test_listing_leaves_the_module_alone() -> None:
    module = TwoStages().train()
    before = {name: (value.data_ptr(), value.clone()) for name, value in module.state_dict().items()}
    with torch.inference_mode():
        inside = list_operations(module, (1, 4, 3, 8, 8))
    assert inside == list_operations(module, (1, 4, 3, 8, 8))
    assert module.training and not any(part._forward_pre_hooks for part in module.modules())
    for name, value in module.state_dict().items():
        assert value.data_ptr() == before[name][0] and torch.equal(value, before[name][1])
    assert [each.stage for each in inside if each.macs] == ["stem", "blocks.0", "head"]


def test_stages_of_a_decoder_cover_everything() -> None:
    config = PRESETS["turbo_vaed_ltx"]
    found = list_operations(on_meta(config), (1, *config.latents.latent_shape(17, 512, 512)))
    assert list(dict.fromkeys(each.stage for each in found)) == ["stem", "stage0", "stage1", "stage2", "stage3", "head"]
    assert sum(each.macs for each in found) / 17e9 == pytest.approx(23.9, abs=0.05)  # as published


def test_same_operations_whatever_the_dtype_and_device() -> None:
    shape = (1, 128, 2, 2, 2)
    expected = list_operations(on_meta(NARROW), shape)
    assert list_operations(Decoder(NARROW), shape) == expected
    assert list_operations(Decoder(NARROW).half(), shape) == expected


@pytest.mark.parametrize(
    ("class_name", "latents", "gmacs_per_frame"),
    [
        ("AutoencoderKLWan", (1, 16, 5, 64, 64), 1128),
        ("AutoencoderKLHunyuanVideo", (1, 16, 5, 64, 64), 2318),
        ("AutoencoderKLCogVideoX", (1, 16, 5, 64, 64), 2454),
        ("AutoencoderKLLTXVideo", (1, 128, 3, 16, 16), 120.2),
    ],
)
def test_decoders_of_teachers_are_covered(class_name: str, latents: tuple[int, ...], gmacs_per_frame: float) -> None:
    """17 frames at 512x512, MACs as counted elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_torchvision()
        import diffusers

    with torch.device("meta"):
        autoencoder = getattr(diffusers, class_name)()
    if class_name == "AutoencoderKLHunyuanVideo":
        autoencoder.use_framewise_decoding = False
    found = list_operations(Calls(lambda x: autoencoder.decode(x).sample), latents)
    assert sum(each.macs for each in found) / 17e9 == pytest.approx(gmacs_per_frame, rel=0.005)
