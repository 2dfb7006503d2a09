"""A soft Q-learning agent small enough to take an update in a millisecond or two."""

import pytest
import torch
from tensordict.nn import TensorDictSequential
from torch.utils._pytree import tree_map
from torchrl.modules import EGreedyModule, ValueOperator
from torchrl.objectives import HardUpdate

from torchrl_stein.envs import MultiGoalEnv
from torchrl_stein.modules import AmortizedSVGDActor
from torchrl_stein.objectives import SoftQLoss
from torchrl_stein.training import OffPolicyAgent, make_mlp, make_optimizer


def build_agent(env, num_cells=(8,), *, updates=100, lr=1e-2, lr_qvalue=None, seed=0):
    """The agent of recipes/soft_q.py, smaller."""
    if seed is not None:
        torch.manual_seed(seed)
    actor = AmortizedSVGDActor(make_mlp(4, 2, num_cells), action_spec=env.action_spec_unbatched)
    qvalue = ValueOperator(make_mlp(4, 1, num_cells), in_keys=["observation", "action"])
    loss = SoftQLoss(actor, qvalue, num_particles=3, num_value_samples=3)
    loss.make_value_estimator(gamma=0.9)
    optimizer, scheduler = make_optimizer(
        (loss.qvalue_network_params.parameters(), lr_qvalue or lr),
        (loss.actor_network_params.parameters(), lr),
        updates=updates,
        final_fraction=0.1,
    )
    return OffPolicyAgent(
        policy=actor,
        explorer=TensorDictSequential(actor, EGreedyModule(env.action_spec, 0.2, 0.2)),
        loss=loss,
        optimizer=optimizer,
        scheduler=scheduler,
        target_updater=HardUpdate(loss, value_network_update_interval=3),
    )


@pytest.fixture
def make_agent():
    return build_agent


@pytest.fixture
def env():
    return MultiGoalEnv((4,), horizon=5, seed=0)


@pytest.fixture
def same():
    """Asserts that nested states are equal to the bit."""

    def compare(a, b, where="state"):
        if isinstance(a, dict):
            assert a.keys() == b.keys(), where
            for key in a:
                compare(a[key], b[key], f"{where}.{key}")
        elif isinstance(a, (list, tuple)):
            assert len(a) == len(b), where
            for i, (x, y) in enumerate(zip(a, b, strict=True)):
                compare(x, y, f"{where}[{i}]")
        elif isinstance(a, torch.Tensor):
            assert a.shape == b.shape, where
            assert a.equal(b), where
        else:
            assert a == b, where

    return compare


@pytest.fixture
def states():
    """Everything that an update of an agent reads and writes."""

    def copy(value):
        return value.clone() if isinstance(value, torch.Tensor) else value

    def collect(agent):
        parts = ("loss", "optimizer", "scheduler", "target_updater")
        return {name: tree_map(copy, dict(getattr(agent, name).state_dict())) for name in parts}

    return collect
