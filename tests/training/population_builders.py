"""A population small enough to take an update in a few milliseconds."""

import torch
from torchrl.objectives import A2CLoss, ClipPPOLoss, ReinforceLoss

from torchrl_stein.envs import CartpoleEnv
from torchrl_stein.kernels import RBFKernel
from torchrl_stein.modules import BirthDeath
from torchrl_stein.objectives import (
    LogLinearSchedule,
    NaturalGradientStep,
    SteinPolicyLoss,
    TRPOLoss,
)
from torchrl_stein.training import (
    PopulationAgent,
    WorldCollector,
    make_gaussian_actor,
    make_linear_critic,
)

N, E = 3, 2


def make_env(seed=0, **options):
    return CartpoleEnv((N, E), seed=seed, **{"horizon": 6, **options})


def build_population(
    env,
    *,
    base="a2c",
    kernel=None,
    temperature=None,
    optimizer=torch.optim.Adam,
    lr=1e-2,
    trpo=None,
    birth_death=None,
    num_cells=(4,),
    seed=0,
    **options,
):
    """The agent of recipes/svpg.py, smaller; its temperature falls from 10 to 0.1."""
    torch.manual_seed(seed)
    n = env.batch_size[0]
    actor = make_gaussian_actor(env, n, num_cells)
    critic = make_linear_critic(env, n)
    no_critic_loss = {"entropy_bonus": False, "critic_coeff": None}
    losses = {
        "reinforce": lambda: ReinforceLoss(actor, critic),
        "a2c": lambda: A2CLoss(actor, critic, **no_critic_loss),
        "ppo": lambda: ClipPPOLoss(actor, critic, **no_critic_loss),
        "trpo": lambda: TRPOLoss(actor, critic, critic_coeff=0.0, normalize_advantage=False),
    }
    loss = SteinPolicyLoss(
        losses[base](),
        kernel=kernel or RBFKernel(),
        temperature=temperature or LogLinearSchedule(10.0, 0.1, num_steps=10),
    )
    if base == "trpo":
        steps = NaturalGradientStep(loss, **(trpo or {}))
    else:
        steps = optimizer(loss.parameters(), lr=lr)
    if birth_death is not None:
        birth_death = BirthDeath(actor[0].module, loss.kernel, **birth_death)
    return PopulationAgent(
        actor=actor,
        critic=critic,
        fit_critic=base != "reinforce",
        loss=loss,
        optimizer=steps,
        birth_death=birth_death,
        **options,
    )


def collect(env, agent, steps=10, batches=1):
    frames = steps * N * E
    return WorldCollector(env, agent.actor, frames_per_batch=frames, total_frames=batches * frames)


def batch_of(env, agent, steps=10):
    return next(iter(collect(env, agent, steps)))
