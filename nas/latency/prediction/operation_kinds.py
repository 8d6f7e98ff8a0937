"""Which of PyTorch's operators are free, and what the cost of the others depends on."""

from typing import Literal

Kind = Literal[
    "conv", "depthwise_conv", "matmul", "elementwise", "reduction", "movement", "high_rank_movement", "resize"
]
"""A high-rank movement is a copy of a tensor that has more than five axes longer than 1: Core ML has no such tensors,
so one copy here becomes many reshapes and transposes there."""

HIGHEST_DEVICE_RANK = 5
"""Of Core ML."""

_FREE = """
    alias as_strided detach diagonal expand lift_fresh movedim narrow permute select slice split
    split_with_sizes squeeze t transpose unbind unfold unsafe_split unsqueeze view _reshape_alias _unsafe_view
    arange empty empty_like full full_like new_empty new_full new_ones new_zeros ones ones_like scalar_tensor
    zeros zeros_like
"""

_KINDS: dict[Kind, str] = {
    "conv": """
        convolution
    """,
    "matmul": """
        addmm baddbmm bmm mm
    """,
    "elementwise": """
        abs add addcdiv addcmul bitwise_and bitwise_not bitwise_or ceil clamp clamp_max clamp_min cos div
        elu eq erf exp fill floor ge gelu gt hardsigmoid hardswish hardtanh leaky_relu le lerp log
        logical_and logical_not logical_or lt masked_fill maximum minimum mish mul ne neg pow _prelu_kernel
        reciprocal relu relu6 remainder round rsqrt rsub sgn sigmoid sign silu sin softplus sqrt square sub
        tanh tril triu where zero
    """,
    "reduction": """
        _log_softmax _safe_softmax _softmax amax amin cumsum linalg_vector_norm max mean min
        native_batch_norm _native_batch_norm_legit_no_training native_group_norm native_layer_norm
        _fused_rms_norm sum std std_mean var var_mean _adaptive_avg_pool2d _adaptive_avg_pool3d avg_pool2d
        avg_pool3d max_pool2d_with_indices
    """,
    "movement": """
        cat channel_shuffle clone constant_pad_nd copy flip gather index index_select pixel_shuffle
        pixel_unshuffle reflection_pad1d reflection_pad2d reflection_pad3d repeat repeat_interleave
        replication_pad1d replication_pad2d replication_pad3d roll stack _to_copy
    """,
    "resize": """
        upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d upsample_trilinear3d
        upsample_bicubic2d upsample_linear1d _upsample_nearest_exact1d _upsample_nearest_exact2d
        _upsample_nearest_exact3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
    """,
}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


FREE = _names(_FREE)
"""Views, and constants that a converter folds."""

KIND_OF: dict[str, Kind] = {name: kind for kind, names in _KINDS.items() for name in _names(names)}
"""Kind of each operator by its name in PyTorch's `aten` namespace, in-place forms without their underscore."""
