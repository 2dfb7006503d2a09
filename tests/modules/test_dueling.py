"""StochasticDuelingNetwork: by hand, its mean over the policy, gradients, bad input."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torch.testing import assert_close
from torchrl.modules import MLP

from torchrl_stein.modules import StochasticDuelingNetwork


class Sum(nn.Module):
    """A(s, a) = sum_j s_j + weight sum_j a_j."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, state, action):
        return state.sum(-1, keepdim=True) + self.weight * action.sum(-1, keepdim=True)


def states(*shape, **more):
    return TensorDict({"observation": torch.randn(*shape, 3), **more}, shape)


def test_by_hand():
    """V = 2 s, A = s + 3 a: at s = 1, a = 5 and u = (0, 2): 2 + 16 - (1 + 7) / 2 = 14."""
    value = nn.Linear(1, 1, bias=False)
    nn.init.constant_(value.weight, 2.0)
    critic = StochasticDuelingNetwork(value, Sum(3.0))
    v, q = critic(
        observation=torch.ones(1, 1),
        action=torch.full((1, 1), 5.0),
        sampled_action=torch.tensor([[[0.0], [2.0]]]),
    )
    assert (v.item(), q.item()) == (2.0, 14.0)


def test_its_mean_over_the_policy_is_the_value():
    """Exactly over the sampled actions themselves, in float64 to rounding."""
    critic = StochasticDuelingNetwork(MLP(3, 1, num_cells=[8]), MLP(5, 1, num_cells=[8])).double()
    u = torch.randn(4, 2, 6, 2, dtype=torch.float64)
    data = states(4, 2, sampled_action=u).double()
    q = [critic(data.copy().set("action", u[..., i, :]))["state_action_value"] for i in range(6)]
    assert q[0].shape == (4, 2, 1)
    assert_close(sum(q) / 6, critic.value(data))
    # Of any others it differs: the advantages are not flat.
    other = critic(data.copy().set("action", 5 * u[..., 0, :]))
    assert (other["state_action_value"] != other["state_value"]).all()


def test_what_is_learnt_of_one_is_learnt_of_the_other():
    critic = StochasticDuelingNetwork(MLP(3, 1, num_cells=[8]), Sum())
    data = states(5, action=torch.randn(5, 2), sampled_action=torch.randn(5, 4, 2))
    critic(data)["state_action_value"].sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in critic.parameters())


def test_other_keys_and_several_entries():
    class Both(nn.Module):
        def forward(self, a, b, action=None):
            return a[..., :1] + b[..., :1] + (0.0 if action is None else action.sum(-1, True))

    critic = StochasticDuelingNetwork(Both(), Both(), in_keys=["a", ("n", "b")], action_key="act")
    assert critic.in_keys == ["a", ("n", "b"), "act", "sampled_action"]
    assert critic.out_keys == ["state_value", "state_action_value"]
    data = {"a": torch.ones(2, 1), "n": {"b": torch.ones(2, 4)}, "act": torch.ones(2, 3)}
    out = critic(TensorDict({**data, "sampled_action": torch.zeros(2, 5, 3)}, [2]))
    assert out["state_action_value"].flatten().tolist() == [2 + 3.0] * 2


def test_what_is_refused():
    owner = "StochasticDuelingNetwork: "
    for name in ("value_network", "advantage_network"):
        networks = {"value_network": Sum(), "advantage_network": Sum()} | {name: torch.add}
        with pytest.raises(TypeError, match=f"{owner}{name} must be an nn.Module, got"):
            StochasticDuelingNetwork(**networks)
    critic = StochasticDuelingNetwork(nn.Linear(3, 1), Sum())
    data = states(4, action=torch.zeros(4, 2), sampled_action=torch.zeros(4, 6, 2))
    for key in ("observation", "action", "sampled_action"):
        with pytest.raises(KeyError, match=f"{owner}the batch lacks key '{key}'"):
            critic(data.exclude(key))
    for shape in ((4, 2), (4, 6, 3)):
        message = rf"'sampled_action' must be .* = \[4, 2\], got {list(shape)}".replace("[", r"\[")
        with pytest.raises(ValueError, match=message.replace(r"\\[", r"\[")):
            critic(data.copy().set("sampled_action", torch.zeros(shape)))
