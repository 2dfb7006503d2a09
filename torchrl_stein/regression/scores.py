"""How well a mixture of particles predicts rows it has not seen."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .posterior import Prediction

__all__ = ["PredictiveScores", "predictive_scores"]


class PredictiveScores(NamedTuple):
    """One number per split, on the scale of the original target.

    Attributes:
        rmse: root mean squared error of the mean prediction, ``[S]``, in units of the target.
        log_likelihood: mean log predictive density, ``[S]``, in nats per row.

    Example:
        >>> PredictiveScores(torch.ones(2), torch.zeros(2)).rmse
        tensor([1., 1.])
    """

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

    Args:
        prediction: of M particles for T rows of S splits.
        target: ``[S, T]``, standardised as the prediction.
        target_scale: sigma, ``[S]``.

    Raises:
        ValueError: if the shapes disagree.

    Source: Hernandez-Lobato & Adams 2015 (arXiv:1502.05336), section 5.1.

    Example:
        >>> prediction = Prediction(torch.zeros(1, 2, 3), torch.zeros(1, 2))
        >>> scores = predictive_scores(prediction, torch.ones(1, 3), torch.tensor([10.0]))
        >>> scores.rmse.item(), round(scores.log_likelihood.item(), 4)
        (10.0, -3.7215)

    which is -1/2 - log(2 pi) / 2 - log 10.
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
