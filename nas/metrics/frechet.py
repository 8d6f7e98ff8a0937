"""The Frechet distance between two sets of features, such as rFVD's."""

import numpy as np
from torch import Tensor


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of the means and covariances of two sets `(n, f)` and `(m, f)`.

    Of fewer samples than features the covariances have no full rank: the number is then too high, and only comparable
    with others of as many samples. The trace of the root is the sum of the singular values of the product of the two
    centred sets, which needs no root of a matrix.

    Raises:
        ValueError: a set has fewer than two samples, or they have other features.
    """
    if features.ndim != 2 or reference.ndim != 2 or features.shape[1] != reference.shape[1]:
        raise ValueError(f"expected sets (n, f), got {tuple(features.shape)} and {tuple(reference.shape)}")
    if min(len(features), len(reference)) < 2:
        raise ValueError("a covariance takes at least two samples")
    sets = [each.double().cpu().numpy() for each in (features, reference)]
    means = [each.mean(axis=0) for each in sets]
    centred = [(each - mean) / np.sqrt(len(each) - 1) for each, mean in zip(sets, means, strict=True)]
    root = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    variances = sum(float((each**2).sum()) for each in centred)
    return max(0.0, float(((means[0] - means[1]) ** 2).sum()) + variances - 2 * float(root))
