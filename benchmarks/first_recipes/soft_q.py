"""Soft Q-learning (Haarnoja et al. 2017, arXiv:1702.08165).

With ``trust_region.weight`` above 0 it is DP-WGF (Zhang et al. 2018, arXiv:1808.03030): a
Wasserstein trust region keeps the sampler near its predecessor.

    python recipes/soft_q.py                          # four goals, one policy, a picture
    python recipes/soft_q.py seed=3 logger=wandb loss.temperature=5
    python recipes/soft_q.py trust_region.weight=0.4  # DP-WGF
    python recipes/soft_q.py resume=runs/soft_q/...   # go on where a run stopped
    python recipes/soft_q.py task=swimmer_finish_line # any task of conf/task
    python recipes/soft_q.py task=ant_pretrain        # then fine-tune it to another task:
    python recipes/soft_q.py task=ant_hallway init_from=runs/soft_q/... annealing.updates=200_000

Every setting of conf/soft_q.yaml and conf/off_policy.yaml can be given on the command line.
"""

import os
from functools import partial

os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")  # read when torchrl is imported
if __name__ == "__main__":  # before torch is imported, which takes seconds
    from command_line import answer_help

    answer_help(__doc__, "soft_q")

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig
from torchrl.envs import EnvBase
from torchrl.modules import ValueOperator

from torchrl_stein.modules import AmortizedSVGDActor
from torchrl_stein.objectives import SoftQLoss
from torchrl_stein.training import (
    OffPolicyAgent,
    make_annealing,
    make_explorer,
    make_mlp,
    make_trust_region,
    make_updaters,
    run_off_policy_recipe,
)


def make_agent(cfg: DictConfig, env: EnvBase) -> OffPolicyAgent:
    """Sampler, Q-function, loss, optimizer and targets: the algorithm."""
    observation_dim = env.observation_spec["observation"].shape[-1]
    action_dim = env.action_spec.shape[-1]
    mlp = partial(make_mlp, num_cells=cfg.network.num_cells, device=cfg.device)
    actor = AmortizedSVGDActor(
        mlp(observation_dim + action_dim, action_dim),  # reads the observation and the noise
        action_spec=env.action_spec_unbatched,
        noise_set_size=cfg.annealing.noise_set_size if cfg.annealing.updates else None,
    )
    qvalues = [
        ValueOperator(mlp(observation_dim + action_dim, 1), in_keys=["observation", "action"])
        for _ in range(cfg.loss.num_qvalue_nets)
    ]
    loss = SoftQLoss(
        actor,
        qvalues,
        # The loss sees scaled rewards; (alpha, r) and (c alpha, c r) are the same problem.
        temperature=cfg.loss.temperature * cfg.training.reward_scale,
        kernel=instantiate(cfg.loss.kernel),
        num_particles=cfg.loss.num_particles,
        num_value_samples=cfg.loss.num_value_samples,
        value_proposal=cfg.loss.value_proposal,
        value_target=cfg.loss.value_target,
        squash=cfg.loss.squash,
    ).to(cfg.device)
    loss.make_value_estimator(gamma=cfg.loss.gamma)
    optimizer, scheduler, target_updater = make_updaters(
        loss, loss.qvalue_network_params.parameters(), loss.actor_network_params.parameters(), cfg
    )
    return OffPolicyAgent(
        policy=actor,
        explorer=make_explorer(actor, env.action_spec, **cfg.exploration),
        loss=loss,
        optimizer=optimizer,
        scheduler=scheduler,
        target_updater=target_updater,
        trust_region=make_trust_region(actor, **instantiate(cfg.trust_region)),
        anneal=make_annealing(
            loss,
            updates=cfg.annealing.updates,
            temperature=cfg.annealing.temperature * cfg.training.reward_scale,
        ),
    )


@hydra.main(version_base="1.3", config_path="conf", config_name="soft_q")
def main(cfg: DictConfig) -> None:
    """Train, evaluate, draw."""
    run_off_policy_recipe(cfg, make_agent)


if __name__ == "__main__":
    main()
