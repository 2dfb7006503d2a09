"""Error and log-likelihood on the original scale."""

import math

import pytest
import torch

from tests.oracles import regression as oracle
from torchrl_stein.regression import predictive_scores
from torchrl_stein.regression.posterior import Prediction


def test_by_hand():
    # Two particles at 0 and 2, precision 1, one row at 1, sigma = 3. The mean prediction is exact;
    # both densities are exp(-1/2) / sqrt(2 pi) per standard deviation, hence / 3 per unit.
    prediction = Prediction(torch.tensor([[[0.0], [2.0]]]), torch.zeros(1, 2))
    scores = predictive_scores(prediction, torch.tensor([[1.0]]), torch.tensor([3.0]))
    assert scores.rmse.tolist() == [0.0]
    expected = -0.5 - 0.5 * math.log(2.0 * math.pi) - math.log(3.0)
    assert scores.log_likelihood.item() == pytest.approx(expected, rel=1e-6)


def test_the_error_is_that_of_the_mean_in_units_of_the_target():
    # Mean predictions 1 and 0, errors 1 and 2: sqrt((1 + 4) / 2), times 10.
    prediction = Prediction(torch.tensor([[[0.0, 1.0], [2.0, -1.0]]]), torch.zeros(1, 2))
    scores = predictive_scores(prediction, torch.tensor([[2.0, 2.0]]), torch.tensor([10.0]))
    assert scores.rmse.item() == pytest.approx(10.0 * math.sqrt(2.5))


def test_against_a_loop_in_original_units():
    mean, log_precision = torch.randn(2, 5, 7).double(), torch.randn(2, 5).double()
    target, scale = torch.randn(2, 7).double(), torch.tensor([0.02, 30.0]).double()
    scores = predictive_scores(Prediction(mean, log_precision), target, scale)
    for s in range(2):
        precisions = log_precision[s].exp().tolist()
        expected = oracle.log_likelihood(
            mean[s].tolist(), precisions, target[s].tolist(), scale[s].item()
        )
        assert scores.log_likelihood[s].item() == pytest.approx(expected, rel=1e-12)


def test_rows_that_no_particle_expects_have_a_finite_density():
    prediction = Prediction(torch.zeros(1, 2, 1), torch.full((1, 2), 8.0))
    scores = predictive_scores(prediction, torch.tensor([[9.0]]), torch.ones(1))
    expected = 0.5 * (8.0 - math.exp(8.0) * 81.0 - math.log(2.0 * math.pi))
    assert scores.log_likelihood.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"log_precision": (2, 1)}, r"log_precision must be \[2, 3\] for means .* got \[2, 1\]"),
        ({"target": (2, 1)}, r"target must be \[2, 4\] for means \[2, 3, 4\], got \[2, 1\]"),
        ({"target_scale": ()}, r"target_scale must be \[2\] for means \[2, 3, 4\], got \[\]"),
    ],
)
def test_bad_shapes(changes, message):
    shapes = {"log_precision": (2, 3), "target": (2, 4), "target_scale": (2,), **changes}
    given = {name: torch.zeros(shape) for name, shape in shapes.items()}
    prediction = Prediction(torch.zeros(2, 3, 4), given.pop("log_precision"))
    with pytest.raises(ValueError, match=message):
        predictive_scores(prediction, **given)
