"""Batch renormalization against TorchRL's, where that is right, and against its formula."""

from copy import deepcopy

import pytest
import torch
from torch.testing import assert_close
from torchrl.modules import BatchRenorm1d

from torchrl_stein.modules import BatchRenorm, ParticleModule

F = 3
pytestmark = pytest.mark.usefixtures("seeded")


@pytest.fixture
def seeded():
    torch.manual_seed(0)


def twin(**options):
    """Ours and TorchRL's with the same statistics, scale and shift."""
    theirs = BatchRenorm1d(F, **options).double()
    with torch.no_grad():
        theirs.running_mean.normal_()
        theirs.running_var.uniform_(0.5, 2.0)
        theirs.weight.normal_()
        theirs.bias.normal_()
    ours = BatchRenorm(F, **options).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def step(layer, x):
    x = x.clone().requires_grad_()
    out = layer(x)
    return [out, *torch.autograd.grad(out.sin().sum(), [x, *layer.parameters()])]


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("max_r", [1.05, 3.0])
def test_torchrls_until_twice_the_warmup(smooth, max_r):
    """Smooth: until the end of the warm-up."""
    ours, theirs = twin(warmup_steps=4, max_r=max_r, max_d=0.5, smooth=smooth, momentum=0.1)
    for _ in range(5 if smooth else 8):
        x = torch.randn(6, F, dtype=torch.float64) * 2 + 1
        assert_close(step(ours, x), step(theirs, x))
        assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()))
    assert_close(step(ours.eval(), x), step(theirs.eval(), x))


@pytest.mark.parametrize("smooth", [False, True])
def test_training_is_evaluation_long_after_the_warmup(smooth):
    ours, theirs = twin(warmup_steps=4, max_r=1e9, max_d=1e9, smooth=smooth)
    x = torch.randn(6, F, dtype=torch.float64) * 2 + 1
    for layer in (ours, theirs):
        layer.num_batches_tracked += 20
    seen = deepcopy(ours).eval()(x)
    assert_close(ours(x), seen)
    assert not torch.allclose(theirs(x), seen)  # five times the corrections


def test_no_warmup():
    ours, theirs = twin(warmup_steps=0)
    x = torch.randn(6, F, dtype=torch.float64)
    assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("training", [True, False])
def test_all_dimensions_but_the_last_are_rows(training):
    ours, _ = twin(warmup_steps=0)
    flat = deepcopy(ours.train(training))
    x = torch.randn(2, 4, 5, F, dtype=torch.float64)
    assert_close(ours(x).flatten(0, -2), flat(x.flatten(0, -2)))
    assert_close(dict(ours.named_buffers()), dict(flat.named_buffers()))


def test_a_population_has_statistics_of_its_own():
    def make():
        layer = BatchRenorm(F, warmup_steps=1).double()
        torch.nn.init.normal_(layer.weight)
        return layer

    population = ParticleModule(make, 4)
    alone = [population.particle(i) for i in range(4)]
    for _ in range(3):
        x = torch.randn(4, 6, F, dtype=torch.float64) + torch.arange(4).view(4, 1, 1)
        assert_close(population(x), torch.stack([net(x[i]) for i, net in enumerate(alone)]))
    for i, net in enumerate(alone):
        assert_close(population.particle(i).state_dict(), net.state_dict())


def test_one_row_has_no_variance():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        BatchRenorm(F)(torch.zeros(1, F))
    assert BatchRenorm(F).eval()(torch.zeros(1, F)).shape == (1, F)
