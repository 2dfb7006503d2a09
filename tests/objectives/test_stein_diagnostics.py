"""What SteinPolicyLoss reports: figures of the population, and kernels that say nothing."""

import warnings

import numpy as np
import pytest
import torch
from torchrl.objectives import A2CLoss

from tests.objectives.stein_builders import (
    BANDWIDTH,
    TEMPERATURE,
    N,
    batch,
    gaussian,
    gradients,
    make_stein,
    run,
    total,
    value,
)
from tests.oracles import kernels as kernel_oracle
from tests.oracles import svpg
from torchrl_stein.kernels import IdentityKernel, RadialControl, RBFKernel
from torchrl_stein.objectives import SteinPolicyLoss
from torchrl_stein.objectives._watches import KernelWatch

OUTSIDE = {"outside_kernel": ["0.bias"]}


@pytest.mark.parametrize("options", [{}, OUTSIDE], ids=["all columns", "columns outside"])
def test_repulsion_ratio_equals_the_two_parts_of_a_double_loop(options):
    torch.manual_seed(0)
    actor = gaussian(**options)
    base, data = A2CLoss(actor, value()), batch(actor)
    loss = SteinPolicyLoss(base, kernel=RBFKernel(BANDWIDTH), temperature=TEMPERATURE)
    d = loss.population.kernel_dim
    x, g = loss.particles.detach().numpy(), -N * gradients(base, data)[loss.particles].numpy()
    kernel = kernel_oracle.rbf(BANDWIDTH)
    push = svpg.loss_gradient(kernel, x[:, :d], 0 * g[:, :d], TEMPERATURE)
    drive = svpg.loss_gradient(kernel, x[:, :d], g[:, :d], 0.0)
    total(run(loss, data)).backward()
    want = np.linalg.norm(push) / np.linalg.norm(drive)
    assert loss.diagnose()["repulsion_ratio"].item() == pytest.approx(want, rel=1e-10)


def place(loss, *rows):
    """Put the particles at these points of the first two columns."""
    with torch.no_grad():
        loss.particles.zero_()
        for i, row in enumerate(rows):
            loss.particles[i, :2] = torch.tensor(row)


def test_particle_distance_is_the_median():
    loss, data = make_stein()
    place(loss, (0.0, 0.0), (3.0, 0.0), (0.0, 4.0))  # distances 3, 4 and 5
    total(run(loss, data)).backward()
    assert loss.diagnose()["particle_distance"] == 4.0


def test_particle_distance_of_one_particle():
    torch.manual_seed(0)
    actor = gaussian(1)
    loss = SteinPolicyLoss(A2CLoss(actor, value(1)))
    total(run(loss, batch(actor, 1))).backward()
    assert loss.diagnose() == {"repulsion_ratio": 0.0, "particle_distance": 0.0}


def test_diagnose_needs_gradients():
    loss, data = make_stein()
    total(run(loss, data)).backward()
    loss.zero_grad()
    message = r"call diagnose\(\) after backward\(\) and before zero_grad\(\)"
    with pytest.raises(RuntimeError, match=f"SteinPolicyLoss: {message}"):
        loss.diagnose()


def test_kernel_figures_by_hand():
    # Squared distances 9, 16 and 25: h = 16 / log 4, so k = 4^(-9/16), 4^(-1) and 4^(-25/16).
    loss, data = make_stein(kernel=None)
    place(loss, (0.0, 0.0), (3.0, 0.0), (0.0, 4.0))
    losses = run(loss, data)
    assert losses["kernel_bandwidth"].item() == pytest.approx(16 / np.log(4))
    mean = (4 ** (-9 / 16) + 4**-1 + 4 ** (-25 / 16)) / 3
    assert losses["kernel_offdiag"].item() == pytest.approx(mean)


def gram(*between):
    """Three particles with these three values of k between them, scaled by 5."""
    matrix = torch.eye(3)
    rows, columns = torch.triu_indices(3, 3, offset=1)
    matrix[rows, columns] = matrix[columns, rows] = torch.tensor(between)
    return 5.0 * matrix


def warnings_of(grams):
    watch = KernelWatch()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for matrix in grams:
            watch.look(matrix)
    return [str(w.message) for w in caught]


@pytest.mark.parametrize(
    ("between", "message"),
    [
        ((0.0, 0.009, -0.009), "nearly the identity .*particles do not interact"),
        ((0.5, 0.505, 0.509), "nearly constant .*they interact whatever the policies do"),
        ((1.0, 1.0, 1.0), "nearly constant .*for 200 iterations"),
    ],
)
def test_a_flat_kernel_warns_once_after_four_looks(between, message):
    assert warnings_of([gram(*between)] * 3) == []
    (text,) = warnings_of([gram(*between)] * 4)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(text)


@pytest.mark.parametrize("between", [(0.0, 0.0, 0.02), (0.5, 0.5, 0.52), (-0.02, 0.0, 0.0)])
def test_an_informative_kernel_never_warns(between):
    assert warnings_of([gram(*between)] * 20) == []


def test_one_informative_look_starts_the_count_anew():
    flat, informative = gram(0.0, 0.0, 0.0), gram(0.1, 0.5, 0.9)
    assert warnings_of([flat, flat, flat, informative, flat, flat, flat]) == []


def test_one_particle_has_no_other():
    assert warnings_of([torch.eye(1)] * 20) == []


@pytest.mark.parametrize("between", [0.0, 0.009, -0.009])
def test_two_particles_can_be_strangers(between):
    (text,) = warnings_of([torch.tensor([[1.0, between], [between, 1.0]])] * 4)
    assert "nearly the identity" in text


@pytest.mark.parametrize("between", [1.0, 0.5, 0.02, -0.02])
def test_the_one_pair_of_two_particles_is_no_constant_kernel(between):
    assert warnings_of([torch.tensor([[1.0, between], [between, 1.0]])] * 20) == []


def test_without_a_push_the_ratio_is_zero_even_without_a_drive():
    actor = gaussian()
    data = batch(actor)
    data["advantage"] = torch.zeros_like(data["advantage"])
    loss = SteinPolicyLoss(A2CLoss(actor, value(), entropy_bonus=False), kernel=IdentityKernel())
    total(run(loss, data)).backward()
    assert loss.diagnose()["repulsion_ratio"] == 0


def test_step_warns_once_after_200_iterations_and_points_at_the_caller():
    loss = make_stein(kernel=RBFKernel(bandwidth=1e-6))[0]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(199):
            loss.step()
        assert not caught
        for _ in range(400):
            loss.step()
    assert [(w.category, w.filename) for w in caught] == [(UserWarning, __file__)]


def test_nobody_is_told_that_the_identity_is_the_identity():
    loss = make_stein(kernel=RadialControl(RBFKernel()))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(400):
            loss.step()
