"""Bayesian neural networks: joint density of weights, precisions and data, and test scores."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Gamma

from torchrl_stein._checks import check_count, check_number, check_numbers, check_type
from torchrl_stein.modules import ParticleModule


class Prediction(NamedTuple):
    """A normal distribution of the target per particle and row, in standardised units.

    ``mean`` is ``[S, M, B]``; ``log_precision``, ``[S, M]``, is the log of the inverse variance.
    """

    mean: Tensor
    log_precision: Tensor

    def log_density(self, target: Tensor) -> Tensor:
        """Log N(y; mean, 1 / precision) of targets ``[S, B]`` by particle, ``[S, M, B]``."""
        residual = target.unsqueeze(1) - self.mean
        return _normal_log_density(residual, self.log_precision.unsqueeze(-1))


class RegressionPosterior(nn.Module):
    r"""S posteriors, each seen by M particles: networks with one hidden layer, and precisions.

    .. math::
        y \sim N(f_w(x), 1/\gamma), \quad w \sim N(0, 1/\lambda), \quad
        \gamma \sim \mathrm{Gamma}(a, \mathrm{rate}\ b)

    with f a ReLU network and w its weights and biases. Lambda is given, or None: then it has the
    prior of gamma and is learnt with the weights, as in the paper. A particle is (w, log lambda if
    learnt, log gamma), flat; the S splits of a table differ in their data alone. All networks
    are one :class:`~torchrl_stein.modules.ParticleModule` of (S, M), ``networks``.

    A learnt lambda is for short runs. The density is largest where all weights are 0, and few
    particles in many dimensions climb towards this mode, though posterior mass is elsewhere.

    Weights start as N(0, 1 / (fan-in + 1)), biases at zero, precisions as draws of their prior.

    Args:
        num_features: F.
        num_splits: S.
        num_particles: M, particles per split.
        num_cells: hidden units.
        weight_precision: lambda, or None to learn it.
        precision_prior: shape a and rate b of the Gamma distribution.

    Source: Zhang et al. 2018 (arXiv:1808.03030), appendix D.2, and for details it leaves out Liu &
    Wang 2016 (arXiv:1608.04471), section 5. Differs: lambda is 1 unless ``weight_precision=None``.
    The released code of the latter draws the first precisions from Gamma(1, scale 0.1), not rate
    0.1, and refits gamma to held-out rows before a test; here gamma is learnt with the weights. On
    the energy data the log-likelihoods were equal within their standard errors.

    Example:
        >>> import torch
        >>> posterior = RegressionPosterior(num_features=3, num_splits=2, num_particles=4)
        >>> posterior.particles.shape, posterior.predict(torch.zeros(2, 10, 3)).mean.shape
        (torch.Size([2, 4, 252]), torch.Size([2, 4, 10]))
    """

    def __init__(
        self,
        num_features: int,
        num_splits: int,
        num_particles: int = 20,
        num_cells: int = 50,
        *,
        weight_precision: float | None = 1.0,
        precision_prior: tuple[float, float] = (1.0, 0.1),
    ) -> None:
        super().__init__()
        owner = "RegressionPosterior"
        check_count(owner, num_features=num_features, num_splits=num_splits)
        check_count(owner, num_particles=num_particles, num_cells=num_cells)
        check_type(owner, "a shape and a rate", (tuple, list), precision_prior=precision_prior)
        if len(precision_prior) != 2:
            raise ValueError(
                f"{owner}: precision_prior must be a shape and a rate, got {precision_prior}"
            )
        check_numbers(owner, above=0, precision_prior=precision_prior)
        if weight_precision is not None:
            check_number(owner, above=0, weight_precision=weight_precision)
        self.num_splits, self.num_particles = num_splits, num_particles
        self.weight_precision, self.precision_prior = weight_precision, precision_prior
        self.num_precisions = 2 if weight_precision is None else 1  # of a particle
        self.networks = ParticleModule(
            lambda: _make_network(num_features, num_cells, precision_prior, self.num_precisions),
            (num_splits, num_particles),
        )

    @property
    def particles(self) -> Tensor:
        """The parameter ``[S, M, d]``; its last column is log gamma."""
        return self.networks.particles

    def predict(self, features: Tensor) -> Prediction:
        """Mean and noise of every particle of a split at its own rows ``[S, B, F]``."""
        if features.ndim != 3 or features.shape[0] != self.num_splits:
            raise ValueError(
                f"RegressionPosterior: features must be [S, B, F] with S = {self.num_splits}, "
                f"got {list(features.shape)}"
            )
        rows = features.unsqueeze(1).expand(-1, self.num_particles, -1, -1)
        return Prediction(self.networks(rows).squeeze(-1), self.particles[..., -1])

    def log_joint(self, features: Tensor, target: Tensor, num_rows: int) -> Tensor:
        """Log density ``[S, M]`` of particles and data from a minibatch, with all constants.

        N / B times the log-likelihood of the batch, plus the log prior of the weights, plus that
        of the log precisions, which includes the Jacobian of the logarithm. Features ``[S, B, F]``
        and targets ``[S, B]`` are standardised; ``num_rows`` is N, the rows of a training part.
        """
        check_count("RegressionPosterior", num_rows=num_rows)
        if target.shape != features.shape[:2]:
            raise ValueError(
                "RegressionPosterior: target must be [S, B] like features [S, B, F], got "
                f"{list(target.shape)} and {list(features.shape)}"
            )
        likelihood = self.predict(features).log_density(target).sum(-1)
        particles = self.particles
        weights = particles[..., : -self.num_precisions]
        log_precisions = particles[..., -self.num_precisions :]
        log_lambda = particles[..., -2:-1]
        if self.weight_precision is not None:
            log_lambda = particles.new_full((), math.log(self.weight_precision))
        prior = _normal_log_density(weights, log_lambda).sum(-1)
        # Of the logarithm u of a Gamma variable: a u - b e^u + const, Jacobian included.
        shape, rate = self.precision_prior
        constant = shape * math.log(rate) - math.lgamma(shape)
        of_precisions = shape * log_precisions - rate * log_precisions.exp() + constant
        return num_rows / target.shape[1] * likelihood + prior + of_precisions.sum(-1)


class PredictiveScores(NamedTuple):
    """Per split, ``[S]``: ``rmse`` in units of the target, ``log_likelihood`` in nats per row."""

    rmse: Tensor
    log_likelihood: Tensor


def predictive_scores(
    prediction: Prediction, target: Tensor, target_scale: Tensor
) -> PredictiveScores:
    r"""Root mean squared error and log-likelihood of the predictive mixture.

    .. math::
        \mathrm{LL} = \frac{1}{T} \sum_t \log \frac{1}{M} \sum_i N(y_t; f_i(x_t), 1/\gamma_i)
        - \log \sigma

    The density of the original target is that of the standardised one divided by the standard
    deviation sigma, hence the last term; the error is multiplied by it.

    ``prediction`` is that of M particles for T rows of S splits, ``target`` ``[S, T]`` standardised
    likewise, and ``target_scale`` sigma, ``[S]``.

    Source: Hernandez-Lobato & Adams 2015 (arXiv:1502.05336), section 5.1.

    Example:
        >>> prediction = Prediction(torch.zeros(1, 2, 3), torch.zeros(1, 2))
        >>> scores = predictive_scores(prediction, torch.ones(1, 3), torch.tensor([10.0]))
        >>> scores.rmse.item(), round(scores.log_likelihood.item(), 4)
        (10.0, -3.7215)
    """
    mean, log_precision = prediction
    splits, particles, rows = mean.shape
    expected: dict[str, tuple[int, ...]] = {
        "log_precision": (splits, particles),
        "target": (splits, rows),
        "target_scale": (splits,),
    }
    given = {"log_precision": log_precision, "target": target, "target_scale": target_scale}
    for name, shape in expected.items():
        if given[name].shape != shape:
            raise ValueError(
                f"predictive_scores: {name} must be {list(shape)} for means {list(mean.shape)}, "
                f"got {list(given[name].shape)}"
            )
    rmse = (target - mean.mean(1)).square().mean(-1).sqrt() * target_scale
    mixture = torch.logsumexp(prediction.log_density(target), 1) - math.log(particles)
    return PredictiveScores(rmse, mixture.mean(-1) - target_scale.log())


class _Precisions(nn.Module):
    """The particle's log precisions, carried along by a layer that does nothing."""

    def __init__(self, prior: tuple[float, float], count: int) -> None:
        super().__init__()
        self.logarithms = nn.Parameter(Gamma(*prior).sample((count,)).log())

    def forward(self, mean: Tensor) -> Tensor:
        return mean


def _make_network(
    num_features: int, num_cells: int, precision_prior: tuple[float, float], num_precisions: int
) -> nn.Module:
    hidden, output = nn.Linear(num_features, num_cells), nn.Linear(num_cells, 1)
    for layer in (hidden, output):
        nn.init.normal_(layer.weight, std=(layer.in_features + 1) ** -0.5)
        nn.init.zeros_(layer.bias)
    # The precisions come last: they are the last columns of a particle.
    layers = {"hidden": hidden, "relu": nn.ReLU(), "output": output}
    precisions = _Precisions(precision_prior, num_precisions)
    return nn.Sequential(OrderedDict(layers, precisions=precisions))


def _normal_log_density(residual: Tensor, log_precision: Tensor) -> Tensor:
    """Of N(0, 1 / precision), elementwise."""
    scaled = log_precision.exp() * residual.square()
    return 0.5 * (log_precision - scaled - math.log(2.0 * math.pi))
