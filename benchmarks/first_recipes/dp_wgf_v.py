"""DP-WGF-V (Zhang et al. 2018, arXiv:1808.03030, algorithm 3) on the multi-goal world.

    python recipes/dp_wgf_v.py                         # a mixture of 16 squashed Gaussians
    python recipes/dp_wgf_v.py actor.num_particles=1   # one squashed Gaussian
    python recipes/dp_wgf_v.py trust_region.weight=0   # without the trust region

Soft Q-learning with a value network, a policy that has a density, and a Wasserstein trust region
over actions. Every setting of conf/dp_wgf_v.yaml and conf/off_policy.yaml can be given on the
command line.
"""

import os
from functools import partial

os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")  # read when torchrl is imported
if __name__ == "__main__":  # before torch is imported, which takes seconds
    from command_line import answer_help

    answer_help(__doc__, "dp_wgf_v")

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig
from tensordict.nn import NormalParamExtractor
from torch import nn
from torchrl.envs import EnvBase
from torchrl.modules import ValueOperator

from torchrl_stein.modules import ParticleModule, TanhGaussianMixtureActor
from torchrl_stein.objectives import SoftQVLoss
from torchrl_stein.training import (
    OffPolicyAgent,
    make_explorer,
    make_mlp,
    make_trust_region,
    make_updaters,
    run_off_policy_recipe,
)


def make_agent(cfg: DictConfig, env: EnvBase) -> OffPolicyAgent:
    """Mixture policy, Q- and V-function, losses, optimizer and targets: the algorithm."""
    observation_dim = env.observation_spec["observation"].shape[-1]
    action_dim = env.action_spec.shape[-1]
    mlp = partial(make_mlp, num_cells=cfg.network.num_cells, device=cfg.device)
    particles = ParticleModule(
        lambda: nn.Sequential(mlp(observation_dim, 2 * action_dim), NormalParamExtractor()),
        cfg.actor.num_particles,
    )
    actor = TanhGaussianMixtureActor(particles, action_spec=env.action_spec_unbatched)
    qvalue = ValueOperator(mlp(observation_dim + action_dim, 1), in_keys=["observation", "action"])
    value = ValueOperator(mlp(observation_dim, 1))
    loss = SoftQVLoss(
        actor,
        qvalue,
        value,
        # The loss sees scaled rewards; (alpha, r) and (c alpha, c r) are the same problem.
        temperature=cfg.loss.temperature * cfg.training.reward_scale,
        kernel=instantiate(cfg.loss.kernel),
        num_particles=cfg.loss.num_particles,
        num_value_samples=cfg.loss.num_value_samples,
        value_target=cfg.loss.value_target,
        squash=cfg.loss.squash,
    ).to(cfg.device)
    loss.make_value_estimator(gamma=cfg.loss.gamma)
    critics = [loss.qvalue_network_params, loss.value_network_params]
    optimizer, scheduler, target_updater = make_updaters(
        loss,
        [parameter for critic in critics for parameter in critic.parameters()],
        loss.actor_network_params.parameters(),
        cfg,
    )
    return OffPolicyAgent(
        policy=actor,
        explorer=make_explorer(actor, env.action_spec, **cfg.exploration),
        loss=loss,
        optimizer=optimizer,
        scheduler=scheduler,
        target_updater=target_updater,
        trust_region=make_trust_region(actor, **instantiate(cfg.trust_region)),
    )


@hydra.main(version_base="1.3", config_path="conf", config_name="dp_wgf_v")
def main(cfg: DictConfig) -> None:
    """Train, evaluate, draw."""
    run_off_policy_recipe(cfg, make_agent)


if __name__ == "__main__":
    main()
