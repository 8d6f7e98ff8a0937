"""Cost classes: which of PyTorch's operators are free, and which of the others share a cost model."""

from typing import Literal

CostClass = Literal[
    "conv", "depthwise_conv", "matmul", "elementwise", "reduction", "movement", "high_rank_movement", "resize"
]
"""Groups of operations, each with one cost model.

A high-rank movement is a copy of a tensor that has more than five axes longer than 1: Core ML has no such tensors, so
one copy here becomes many reshapes and transposes there.
"""

_FREE = """
    alias as_strided detach diagonal expand lift_fresh movedim narrow permute select slice split
    split_with_sizes squeeze t transpose unbind unfold unsafe_split unsqueeze view _reshape_alias _unsafe_view
    arange empty empty_like full full_like new_empty new_full new_ones new_zeros ones ones_like scalar_tensor
    zeros zeros_like
"""

_NAMES: dict[CostClass, str] = {
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


FREE = frozenset(_FREE.split())
"""Operators that cost nothing: views, and constants that a converter folds."""

COST_CLASS_OF: dict[str, CostClass] = {
    name: cost_class for cost_class, names in _NAMES.items() for name in names.split()
}
"""Cost class of each operator by its name in PyTorch's `aten` namespace, in-place forms without their underscore."""
