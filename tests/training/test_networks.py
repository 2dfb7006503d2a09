"""The networks of the recipes."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from torchrl_stein.training import make_mlp


@pytest.mark.parametrize("num_cells", [[], [7], [16, 8]])
def test_layers(num_cells):
    net = make_mlp(4, 2, num_cells)
    linear = [m for m in net if isinstance(m, nn.Linear)]
    sizes = [4, *num_cells, 2]
    assert [(m.in_features, m.out_features) for m in linear] == list(pairwise(sizes))
    assert [type(m) for m in net][1::2] == [nn.ReLU] * len(num_cells)


def test_weights_are_xavier_uniform_and_biases_zero():
    net = make_mlp(300, 2, [200])
    weight = net[0].weight
    bound = (6 / (300 + 200)) ** 0.5
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.99 * bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert all((m.bias == 0).all() for m in net if isinstance(m, nn.Linear))


def test_several_inputs_are_concatenated():
    net = make_mlp(4, 1, [8])
    a, b = torch.randn(5, 3), torch.randn(5, 1)
    assert_close(net(a, b), net(torch.cat([a, b], -1)))


def test_num_cells_of_a_configuration():
    omegaconf = pytest.importorskip("omegaconf")
    cells = omegaconf.OmegaConf.create([8, 8])
    assert make_mlp(2, 2, cells)(torch.zeros(1, 2)).shape == (1, 2)
