"""On a small nonlinear problem particles beat the mean and the best line by far."""

import math

import pytest
import torch

from torchrl_stein.kernels import MedianBandwidth, RBFKernel
from torchrl_stein.objectives import SinkhornCost
from torchrl_stein.regression import (
    ParticleFlow,
    RegressionPosterior,
    Table,
    make_splits,
    minibatches,
    predictive_scores,
)

NOISE = 0.1


@pytest.fixture(scope="module")
def splits():
    """y = 5 (sin 2 x_1 + x_2^2) + 50 + noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(200, 2, generator=generator, dtype=torch.float64) * 4.0 - 2.0
    noise = NOISE * torch.randn(200, generator=generator, dtype=torch.float64)
    return make_splits(
        Table("t", x, 5.0 * ((2.0 * x[:, 0]).sin() + x[:, 1] ** 2 + noise) + 50.0), num_splits=2
    )


def error_of_a_line(splits):
    """RMSE of least squares in original units, [S]."""
    ones = torch.ones_like(splits.train_features[..., :1])
    train = torch.cat([splits.train_features, ones], -1)
    line = torch.linalg.lstsq(train, splits.train_target.unsqueeze(-1)).solution
    test = torch.cat([splits.test_features, torch.ones_like(splits.test_features[..., :1])], -1)
    error = (test @ line).squeeze(-1) - splits.test_target
    return error.square().mean(-1).sqrt() * splits.target_scale


@pytest.mark.parametrize("cost", [None, SinkhornCost(num_iterations=10)], ids=["svgd", "wgf"])
def test_better_than_a_line(splits, cost):
    torch.manual_seed(0)
    posterior = RegressionPosterior(2, num_splits=2, num_particles=8, num_cells=20)
    optimizer = torch.optim.RMSprop(posterior.parameters(), lr=1e-2, alpha=0.9, eps=1e-6)
    flow = ParticleFlow(posterior, RBFKernel(MedianBandwidth("log(n)")), optimizer, cost)
    batches = minibatches(splits.train_features, splits.train_target, batch_size=60)
    for _ in range(500):
        flow.step(*next(batches), num_rows=180)
    with torch.no_grad():
        prediction = posterior.predict(splits.test_features)
    scores = predictive_scores(prediction, splits.test_target, splits.target_scale)
    mean = splits.test_target.square().mean(-1).sqrt() * splits.target_scale
    assert (scores.rmse < 0.3 * torch.minimum(mean, error_of_a_line(splits))).all()
    # A normal as wide as the target has -1/2 log(2 pi e) - log sigma.
    broad = -0.5 * math.log(2.0 * math.pi * math.e) - splits.target_scale.log()
    assert (scores.log_likelihood > broad + 0.8).all()
