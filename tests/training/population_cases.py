"""Populations of every kind that the recipe makes, small, and data to learn from."""

from functools import partial

import torch

from tests.training.population_builders import build_population
from torchrl_stein.envs import CartpoleEnv
from torchrl_stein.kernels import (
    BehaviourKernel,
    DriftControl,
    GroupedKernel,
    LayerwiseKernel,
    RBFKernel,
)
from torchrl_stein.objectives import SinkhornCost
from torchrl_stein.training import WorldCollector, make_trust_region

KERNELS = {
    "layerwise": lambda actor: LayerwiseKernel(actor[0].module.layer_slices),
    "behaviour": BehaviourKernel,
    "grouped": lambda actor: GroupedKernel(RBFKernel(), 2),
    "drift": lambda actor: DriftControl(RBFKernel(), 4, actor[0].module.kernel_dim, seed=0),
}
POPULATIONS = {
    "a2c": {},
    "reinforce": {"base": "reinforce"},
    "ppo": {"base": "ppo", "num_epochs": 2, "num_minibatches": 2},
    "trpo": {"base": "trpo", "trpo": {"iterations": 2, "num_candidates": 3}},
    "ip_wgf": {"region": {"tau": None}},
    "ip_wgf_moving": {"region": {"tau": 0.1}},
    "birth_death": {"birth_death": {}, "birth_death_interval": 2},
    **{name: {"kernel": name} for name in KERNELS},
}


def build_case(case, device="cpu"):
    """An agent, and the collector of its data; its temperature follows a schedule."""
    options = dict(POPULATIONS[case])
    region, kernel = options.pop("region", None), options.pop("kernel", None)
    env = CartpoleEnv((4, 2), device, seed=0, horizon=6)
    # Fused: the count of its steps is a tensor that the host does not read.
    adam = partial(torch.optim.Adam, fused=True)
    agent = build_population(env, optimizer=adam, **options)
    agent.loss.to(device)
    if kernel is not None:
        agent.loss.kernel = KERNELS[kernel](agent.actor).to(device)
    if region is not None:
        cost = SinkhornCost()
        agent.trust_region = make_trust_region(
            agent.actor, weight=1.0, cost=cost, space="parameter", **region
        )
    return agent, WorldCollector(env, agent.actor, frames_per_batch=80, total_frames=10_000)
