"""A Gaussian process over architectures: sizes vary smoothly, choices count by how many are shared."""

from collections.abc import Sequence
from math import log, pi

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

from nas.proposals.features import Described, Floats

_START = np.log([1.0, 3.0, 1.0, 0.5, 0.3])
"""Logarithms of the scale of sizes, their length, the scale of choices, their length, and the noise, at first."""
_BOUNDS = tuple(zip(np.log([0.05, 1.0, 0.05, 0.1, 0.05]), np.log([5.0, 30.0, 5.0, 3.0, 1.0]), strict=True))


class GaussianProcess:
    """Mean and deviation of a number for architectures, from those for which it is known.

    The kernel is a Gaussian of standardised sizes plus an exponential of the share of choices that differ; its five
    parameters are those of the largest marginal likelihood ("Gaussian Processes for Machine Learning", 2006, 5.4).

    Args:
        described: architectures whose number is known, at least two.
        values: their numbers, finite.
    """

    def __init__(self, described: Sequence[Described], values: Sequence[float]) -> None:
        self._described = list(described)
        sizes = np.array([each.sizes for each in described])
        self._centre, self._spread = sizes.mean(axis=0), sizes.std(axis=0) + 1e-6
        # A size in which the known ones hardly differ says nothing, and must not say much about new ones.
        self._spread[sizes.std(axis=0) < 1e-3] = np.inf
        numbers = np.asarray(values, dtype=np.float64)
        self._mean, self._deviation = float(numbers.mean()), float(numbers.std()) or 1.0
        self._numbers = (numbers - self._mean) / self._deviation
        self._apart = self._distances(self._described)
        self._kernel = minimize(self._loss, _START, bounds=_BOUNDS, method="L-BFGS-B", options={"maxiter": 30}).x
        self._factor = cho_factor(self._covariance(*self._apart, self._kernel) + self._noise(self._kernel))
        self._weights = cho_solve(self._factor, self._numbers)

    def predict(self, described: Sequence[Described]) -> tuple[Floats, Floats]:
        """Mean and standard deviation, both `(n,)`, in the units of the values."""
        across = self._covariance(*self._distances(described), self._kernel)
        scale_of_sizes, _, scale_of_choices, _, _ = np.exp(self._kernel)
        left = scale_of_sizes + scale_of_choices - np.einsum("ij,ji->i", across, cho_solve(self._factor, across.T))
        mean: Floats = self._mean + self._deviation * (across @ self._weights)
        deviation: Floats = self._deviation * np.sqrt(np.maximum(left, 1e-9))
        return mean, deviation

    def _distances(self, described: Sequence[Described]) -> tuple[Floats, Floats]:
        """Squared distances of sizes and shares of choices that differ, from the known ones, both `(n, known)`."""
        ours, theirs = (np.array([each.sizes for each in some]) for some in (self._described, described))
        sizes = cdist((theirs - self._centre) / self._spread, (ours - self._centre) / self._spread, "sqeuclidean")
        shares = [
            [1 - len(one.choices & other.choices) / len(one.choices | other.choices) for other in self._described]
            for one in described
        ]
        return sizes, np.array(shares)

    def _covariance(self, sizes: Floats, choices: Floats, kernel: Floats) -> Floats:
        scale_of_sizes, length, scale_of_choices, share, _ = np.exp(kernel)
        smooth = scale_of_sizes * np.exp(-sizes / (2 * length**2))
        covariance: Floats = smooth + scale_of_choices * np.exp(-choices / share)
        return covariance

    def _noise(self, kernel: Floats) -> Floats:
        noise: Floats = np.exp(2 * kernel[4]) * np.eye(len(self._numbers))
        return noise

    def _loss(self, kernel: Floats) -> float:
        """Negative logarithm of the marginal likelihood."""
        factor = cho_factor(self._covariance(*self._apart, kernel) + self._noise(kernel))
        fit = float(self._numbers @ cho_solve(factor, self._numbers)) / 2
        return fit + float(np.log(np.diag(factor[0])).sum()) + len(self._numbers) / 2 * log(2 * pi)
