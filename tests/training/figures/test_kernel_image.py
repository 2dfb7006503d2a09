"""The kernel of a population as numbers and as colours."""

import numpy as np
import pytest
import torch
from torchrl.objectives import ReinforceLoss

from torchrl_stein.envs import CartpoleEnv
from torchrl_stein.kernels import IdentityKernel, LinearKernel, RBFKernel
from torchrl_stein.objectives import SteinPolicyLoss
from torchrl_stein.training import make_gaussian_actor, make_linear_critic
from torchrl_stein.training.figures.kernel_image import kernel_image, kernel_matrix


def make_loss(kernel, n=5):
    env = CartpoleEnv((n, 2), seed=0)
    actor, critic = make_gaussian_actor(env, n, [4]), make_linear_critic(env, n)
    return SteinPolicyLoss(ReinforceLoss(actor, critic), kernel=kernel)


def test_it_is_the_kernel_of_the_columns_it_couples():
    loss = make_loss(RBFKernel(30.0))
    with torch.no_grad():
        loss.particles.add_(0.3 * torch.randn_like(loss.particles))
    d = loss.population.kernel_dim
    assert d < loss.particles.shape[1]  # the log standard deviations stay outside
    matrix = kernel_matrix(loss)
    points = loss.particles.detach()[:, :d].double()
    expected = [[torch.exp(-(a - b).square().sum() / 30.0) for b in points] for a in points]
    torch.testing.assert_close(matrix.double(), torch.tensor(expected), rtol=1e-5, atol=1e-6)
    assert not matrix.requires_grad


def test_it_follows_the_particles():
    loss = make_loss(RBFKernel(30.0))
    before = kernel_matrix(loss)
    with torch.no_grad():
        loss.particles.copy_(loss.particles[:1].expand_as(loss.particles))
    assert kernel_matrix(loss).eq(1.0).all()
    assert not before.eq(1.0).all()
    assert kernel_matrix(make_loss(IdentityKernel(), n=3)).equal(torch.eye(3))


def test_it_agrees_with_the_diagnostics():
    loss = make_loss(RBFKernel())
    matrix = kernel_matrix(loss)
    off_diagonal = (matrix.sum() - matrix.trace()) / (5 * 4)
    env = CartpoleEnv((5, 2), seed=0)
    data = env.rollout(3, loss.loss_module.actor_network, break_when_any_done=False)
    data["advantage"] = torch.zeros(5, 2, 3, 1)
    data["value_target"] = torch.zeros(5, 2, 3, 1)
    torch.testing.assert_close(loss(data)["kernel_offdiag"], off_diagonal)


def test_another_loss_is_refused():
    with pytest.raises(TypeError, match="loss must be a SteinPolicyLoss, got Linear"):
        kernel_matrix(torch.nn.Linear(1, 1))


# colours


def lightness(image):
    return image.double() @ torch.tensor([0.2126, 0.7152, 0.0722], dtype=torch.double)


def test_every_entry_is_a_square_of_one_colour():
    matrix = torch.arange(6.0).reshape(2, 3)
    image = kernel_image(matrix, size=31)
    assert (image.shape, image.dtype) == ((20, 30, 3), torch.uint8)
    squares = image.reshape(2, 10, 3, 10, 3).transpose(1, 2).flatten(2, 3)
    assert squares.eq(squares[:, :, :1]).all()
    # The larger the entry, the lighter its square.
    light = lightness(squares[:, :, 0]).flatten()
    assert light.diff().gt(0).all()


def test_the_scale_begins_at_zero_unless_an_entry_is_below():
    dark, bright = kernel_image(torch.tensor([[0.0, 1.0]]), size=2)[0]
    assert dark.tolist() == [68, 1, 84]  # the ends of viridis
    assert bright.tolist() == [253, 231, 36]
    assert kernel_image(torch.tensor([[0.9, 1.0]]), size=2)[0, 1].equal(bright)
    assert not kernel_image(torch.tensor([[0.9, 1.0]]), size=2)[0, 0].equal(dark)
    assert kernel_image(torch.tensor([[-3.0, 1.0]]), size=2)[0].equal(torch.stack([dark, bright]))
    assert kernel_image(torch.zeros(2, 2), size=2).eq(dark).all()


def test_matrices_larger_than_the_picture_keep_every_entry():
    assert kernel_image(torch.eye(50), size=20).shape == (50, 50, 3)


def test_a_linear_kernel_works_too():
    image = kernel_image(kernel_matrix(make_loss(LinearKernel())))
    assert image.shape == (480, 480, 3)
    assert len(np.unique(image.numpy())) > 2


@pytest.mark.parametrize(
    ("matrix", "size", "message"),
    [
        (torch.ones(3), 10, r"got shape \[3\]"),
        (torch.ones(0, 0), 10, r"got shape \[0, 0\]"),
        (torch.tensor([[1.0, float("nan")]]), 10, "with 1 values that are not"),
        (torch.ones(2, 2), 0, "size must be >= 1, got 0"),
    ],
)
def test_bad_input_is_refused(matrix, size, message):
    with pytest.raises(ValueError, match=message):
        kernel_image(matrix, size)
