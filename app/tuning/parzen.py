"""Parzen estimators of a tree-structured Parzen estimator, in a few array operations each.

The densities are those of Optuna's TPE (Bergstra et al., "Algorithms for Hyper-Parameter Optimization", 2011; the joint
kernels of Falkner et al., "BOHB", 2018): a mixture with one product kernel an observation and a prior over the whole
space. A numerical parameter has a normal kernel cut off at the bounds, as wide as the farther neighbour is away; a
categorical one a smoothed one-hot. What Optuna computes kernel by kernel in Python is one matrix product here.

Arrays of *points* are float64 [parameters, points] in coordinates: the logarithm of a logarithmic parameter, a choice's
index, else the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.special import log_ndtr, ndtr, ndtri_exp

Array = NDArray[np.float64]

PRIOR_WEIGHT = 1.0
"""Of the kernel over the whole space; an observation of full weight has 1."""
NARROWEST = 100.0
"""No kernel is narrower than the range by this (the "magic clip"), and wider ones hold for fewer observations."""
LOG_SQRT_2PI = float(np.log(np.sqrt(2 * np.pi)))
NOTHING = -700.0
"""Logarithm of what adds nothing to 1; the exponential of less is denormal, which costs the processor several times."""
BLOCK = 512
"""Kernels of one matrix product: few enough that BLAS stays on one thread (on two shared cores its threads waited for
each other: 12 ms for 24 points and 20,000 kernels instead of 0.4) and that a block stays in the cache."""

MOST_NUMBERS = 4_000_000
"""Points times kernels that are in memory at once, but for one point at least: 32 MB."""
WIDE_NUMBERS = 100_000
"""Choices times kernels of one categorical parameter up to which it is part of the matrix product."""


@dataclass(frozen=True)
class Axis:
    """One parameter: `choices` of a categorical one, else a range; `step` is 0 where it is continuous."""

    distribution: BaseDistribution
    choices: int = 0
    low: float = 0.0
    high: float = 0.0
    step: float = 0.0
    log: bool = False

    @classmethod
    def of(cls, distribution: BaseDistribution) -> Axis:
        """The axis of an Optuna distribution."""
        if isinstance(distribution, CategoricalDistribution):
            return cls(distribution, choices=len(distribution.choices))
        if not isinstance(distribution, FloatDistribution | IntDistribution):
            raise TypeError(f"Expected a float, int or categorical distribution. Received: {distribution!r}")
        step = distribution.step or 0.0
        return cls(distribution, 0, float(distribution.low), float(distribution.high), float(step), distribution.log)

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """The coordinates between which kernels lie: half a step beyond the first and the last value."""
        low, high = self.low - self.step / 2, self.high + self.step / 2
        return (float(np.log(low)), float(np.log(high))) if self.log else (low, high)

    def coordinate(self, value: Any) -> float:
        """Where a value lies."""
        internal = self.distribution.to_internal_repr(value)
        return float(np.log(internal)) if self.log else internal

    def value(self, coordinate: float) -> Any:
        """The value at a coordinate; of a stepped parameter the nearest."""
        if self.choices:
            return self.distribution.to_external_repr(coordinate)
        return self.distribution.to_external_repr(float(self.snapped(np.array(coordinate))))

    def snapped(self, coordinates: Array) -> Array:
        """The numerical values, in the parameter's own unit, nearest to coordinates."""
        values = np.exp(coordinates) if self.log else coordinates
        if self.step:
            values = self.low + np.round((values - self.low) / self.step) * self.step
        return np.clip(values, self.low, self.high)


class Axes:
    """The parameters of a space in order, sorted by kind."""

    def __init__(self, distributions: Sequence[BaseDistribution]) -> None:
        self.every = [Axis.of(distribution) for distribution in distributions]
        self.categorical = [i for i, axis in enumerate(self.every) if axis.choices]
        self.numerical = [i for i, axis in enumerate(self.every) if not axis.choices]
        numerical = [self.every[i] for i in self.numerical]
        self.continuous = [row for row, axis in enumerate(numerical) if not axis.step]
        """Rows of the numerical parameters alone; so is `stepped`."""
        self.stepped = [row for row, axis in enumerate(numerical) if axis.step]
        self.low = np.array([[axis.bounds[0]] for axis in numerical]).reshape(-1, 1)
        self.high = np.array([[axis.bounds[1]] for axis in numerical]).reshape(-1, 1)

    def __len__(self) -> int:
        return len(self.every)


class Parzen:
    """The mixture over observations, each with a weight, and the prior.

    Args:
        points: of the observations, [parameters, n].
        weights: [n], positive; they need not add up to 1.
    """

    def __init__(self, axes: Axes, points: Array, weights: Array) -> None:
        self._axes = axes
        self._points = points
        weights = np.append(weights, PRIOR_WEIGHT) if weights.size else np.ones(1)
        self._weights = weights / weights.sum()
        observed = points[axes.numerical]
        self._order = np.argsort(observed, axis=1)
        widths = _widths(observed, self._order, axes.low, axes.high)
        self._wide = [i for i in axes.categorical if axes.every[i].choices * self._weights.size > WIDE_NUMBERS]
        """Categorical parameters whose choices would take a large matrix with the kernels: compared one by one."""
        # The prior comes last: a kernel in the middle of the range, as wide as the range.
        self._centres = np.concatenate([observed, (axes.low + axes.high) / 2], axis=1)
        self._widths = np.concatenate([widths, axes.high - axes.low], axis=1)

    @property
    def _observed(self) -> int:
        return int(self._points.shape[1])

    def _smoothing(self, choices: int) -> tuple[float, float]:
        """The probability of a kernel's own choice, and of each other one."""
        share = PRIOR_WEIGHT / (self._observed + 1)
        total = 1 + choices * share
        return (1 + share) / total, share / total

    def sample(self, random: np.random.RandomState, size: int) -> Array:
        """Points [parameters, size] drawn from the mixture.

        Takes from `random` what Optuna's does in its order: kernels, each categorical parameter, all numerical ones.
        """
        cumulative = self._weights.cumsum()
        kernels = (cumulative / cumulative[-1]).searchsorted(random.random_sample(size), side="right")
        found = np.empty((len(self._axes), size))
        for i in self._axes.categorical:
            found[i] = self._choose(i, kernels, random.random_sample(size))
        if self._axes.numerical:
            quantiles = random.random_sample((len(self._axes.numerical), size))
            found[self._axes.numerical] = self._place(kernels, quantiles)
        return found

    def _choose(self, i: int, kernels: NDArray[np.intp], quantiles: Array) -> Array:
        choices = self._axes.every[i].choices
        own, other = self._smoothing(choices)
        is_prior = kernels == self._observed
        probabilities = np.where(is_prior[:, None], 1 / choices, np.full((kernels.size, choices), other))
        seen = np.flatnonzero(~is_prior)
        probabilities[seen, self._points[i, kernels[seen]].astype(np.intp)] = own
        cumulative = probabilities.cumsum(axis=1)
        cumulative[:, -1] = 1.0
        found: Array = (cumulative < quantiles[:, None]).sum(axis=1).astype(np.float64)
        return found

    def _place(self, kernels: NDArray[np.intp], quantiles: Array) -> Array:
        """Numerical coordinates at these quantiles of the kernels, those of stepped parameters on their steps."""
        centres, widths = self._centres[:, kernels], self._widths[:, kernels]
        low, high = (self._axes.low - centres) / widths, (self._axes.high - centres) / widths
        with np.errstate(divide="ignore"):
            below = np.logaddexp(log_ndtr(low), np.log(quantiles) + np.log(ndtr(high) - ndtr(low)))
        found: Array = np.clip(ndtri_exp(below) * widths + centres, self._axes.low, self._axes.high)
        for row in self._axes.stepped:
            axis = self._axes.every[self._axes.numerical[row]]
            values = axis.snapped(found[row])
            found[row] = np.log(values) if axis.log else values
        return found

    def log_density(self, points: Array) -> Array:
        """The logarithm of the density at points [parameters, m]: [m]. Many points are taken in parts."""
        count, at_once = points.shape[1], max(1, MOST_NUMBERS // self._weights.size)
        parts = [self._log_density(points[:, start : start + at_once]) for start in range(0, count, at_once)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _log_density(self, points: Array) -> Array:
        features, coefficients, constant = self._products(points)
        joint = np.empty((points.shape[1], self._weights.size))
        for start in range(0, self._weights.size, BLOCK):
            block = slice(start, start + BLOCK)
            np.matmul(features, coefficients[:, block], out=joint[:, block])
        joint += constant
        for i in self._wide:
            choices = self._axes.every[i].choices
            own, other = np.log(self._smoothing(choices))
            joint[:, :-1] += np.where(points[i][:, None] == self._points[i], own - other, 0.0)
        for row in self._axes.stepped:
            joint += self._log_masses(row, points[self._axes.numerical[row]])
        highest = joint.max(axis=1)
        joint -= highest[:, None]
        np.maximum(joint, NOTHING, out=joint)
        found: Array = np.log(np.exp(joint, out=joint).sum(axis=1)) + highest
        return found

    def _products(self, points: Array) -> tuple[Array, Array, Array]:
        """Features of points [m, f], coefficients of kernels [f, n + 1], and constants of kernels [n + 1].

        Their product plus the constant is the logarithm of weight and kernel but for the stepped parameters. A normal
        exponent -(x - c)²/2w² is x²·(-1/2w²) + x·c/w² - c²/2w²; x and c count from the middle of the range in ranges,
        which keeps the terms below 1,250.
        """
        axes = self._axes
        middle, extent = (axes.low + axes.high) / 2, axes.high - axes.low
        masses = ndtr((axes.high - self._centres) / self._widths) - ndtr((axes.low - self._centres) / self._widths)
        constant = np.log(self._weights) - np.log(masses).sum(axis=0)
        features, coefficients = [], []
        if axes.continuous:
            rows, columns = axes.continuous, [axes.numerical[row] for row in axes.continuous]
            x = (points[columns] - middle[rows]) / extent[rows]
            centres = (self._centres[rows] - middle[rows]) / extent[rows]
            sharpness = (extent[rows] / self._widths[rows]) ** 2
            features += [x * x, x]
            coefficients += [-0.5 * sharpness, sharpness * centres]
            constant -= (0.5 * sharpness * centres**2 + np.log(self._widths[rows]) + LOG_SQRT_2PI).sum(axis=0)
        for i in axes.categorical:
            choices = axes.every[i].choices
            own, other = np.log(self._smoothing(choices))
            constant[:-1] += other
            constant[-1] -= np.log(choices)
            if i in self._wide:
                continue
            numbers = np.arange(choices)[:, None]
            features.append((numbers == points[i]).astype(np.float64))
            is_own = np.zeros((choices, self._weights.size))
            is_own[:, :-1] = np.where(numbers == self._points[i], own - other, 0.0)
            coefficients.append(is_own)
        if not features:
            return np.zeros((points.shape[1], 1)), np.zeros((1, self._weights.size)), constant
        return np.ascontiguousarray(np.concatenate(features).T), np.concatenate(coefficients), constant

    def _log_masses(self, row: int, coordinates: Array) -> Array:
        """The logarithm of the mass of each kernel within half a step of each point: [m, n + 1].

        Computed once for kernels and points that are equal: on a grid most are.
        """
        axis = self._axes.every[self._axes.numerical[row]]
        values, of_point = np.unique(axis.snapped(coordinates), return_inverse=True)
        edges = np.stack([values - axis.step / 2, values + axis.step / 2])
        edges = np.log(edges) if axis.log else edges
        order = np.append(self._order[row], self._observed)
        centres, widths = self._centres[row, order], self._widths[row, order]
        is_new = (centres[1:] != centres[:-1]) | (widths[1:] != widths[:-1])
        of_kernel = np.empty(order.size, dtype=np.intp)
        of_kernel[order] = np.concatenate([[0], np.cumsum(is_new)])
        firsts = np.concatenate([[0], np.flatnonzero(is_new) + 1])
        low, high = (edges[:, :, None] - centres[firsts]) / widths[firsts]
        found: Array = _log_mass(low, high)[:, of_kernel][of_point]
        return found


def _widths(points: Array, order: NDArray[np.intp], low: Array, high: Array) -> Array:
    """The widths of kernels: to the farther neighbour or bound, of the outermost ones to their neighbour."""
    rows, count = points.shape
    if count == 0:
        return np.empty((rows, 0))
    ends = np.concatenate([low, np.take_along_axis(points, order, axis=1), high], axis=1)
    gaps = np.diff(ends, axis=1)
    widths = np.maximum(gaps[:, :-1], gaps[:, 1:])
    if count >= 2:
        widths[:, 0], widths[:, -1] = gaps[:, 1], gaps[:, -2]
    narrowest = (high - low) / min(NARROWEST, 2.0 + count)
    found = np.empty_like(points)
    np.put_along_axis(found, order, np.clip(widths, narrowest, high - low), axis=1)
    return found


def _log_mass(low: Array, high: Array) -> Array:
    """The logarithm of the standard normal mass between bounds, accurate in both tails."""
    # By symmetry always in the left tail, where the logarithm of the distribution keeps its digits.
    mirrored = low + high > 0
    low, high = np.where(mirrored, -high, low), np.where(mirrored, -low, high)
    most = log_ndtr(high)
    found: Array = most + np.log(-np.expm1(log_ndtr(low) - most))
    return found
