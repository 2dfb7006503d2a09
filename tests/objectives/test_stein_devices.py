"""An update of a population on a GPU never waits for the host."""

import pytest
import torch
from torchrl.objectives import A2CLoss

from torchrl_stein.envs import (
    CartpoleEnv,
    CartpoleSwingUpEnv,
    DoublePendulumEnv,
    MountainCarEnv,
)
from torchrl_stein.objectives import SteinPolicyLoss
from torchrl_stein.training import (
    PopulationAgent,
    WorldCollector,
    make_gaussian_actor,
    make_linear_critic,
)

ENVS = [CartpoleEnv, CartpoleSwingUpEnv, DoublePendulumEnv, MountainCarEnv]


def make_agent(make_env, device):
    env = make_env((4, 2), device, seed=0)
    actor, critic = make_gaussian_actor(env, 4, [8]), make_linear_critic(env, 4)
    loss = SteinPolicyLoss(A2CLoss(actor, critic, entropy_bonus=False, critic_coeff=None))
    loss = loss.to(device)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3, fused=True)
    agent = PopulationAgent(actor, critic, True, loss, optimizer)
    return agent, WorldCollector(env, actor, frames_per_batch=80, total_frames=800)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("make_env", ENVS, ids=lambda e: e.__name__)
def test_collection_and_update_on_the_gpu_do_not_wait(make_env):
    agent, collector = make_agent(make_env, "cuda")
    before = agent.actor[0].module.particles.detach().clone()
    for attempt in range(2):  # the first call may set up libraries
        torch.cuda.set_sync_debug_mode("error" if attempt else "default")
        try:
            agent.update(collector.collect())
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert not torch.equal(agent.actor[0].module.particles, before)
