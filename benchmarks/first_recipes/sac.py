"""Soft actor-critic of TorchRL, a unimodal baseline with the networks of soft Q-learning.

    python recipes/sac.py seed=1
    python recipes/sac.py task=swimmer

The temperature is fixed, as in the first version of the algorithm and in soft Q-learning; two
Q-networks and no value network, as in the second. The Q-functions' loss is TorchRL's default,
smooth L1. Exploration is the policy's own: the settings ``exploration`` of a task are not used.
"""

import os
from functools import partial

os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")  # read when torchrl is imported
if __name__ == "__main__":  # before torch is imported, which takes seconds
    from command_line import answer_help

    answer_help(__doc__, "sac")

import hydra
from omegaconf import DictConfig
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.envs import EnvBase
from torchrl.modules import ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import SACLoss

from torchrl_stein.training import (
    OffPolicyAgent,
    make_mlp,
    make_updaters,
    run_off_policy_recipe,
)


def make_agent(cfg: DictConfig, env: EnvBase) -> OffPolicyAgent:
    """Squashed Gaussian, two Q-functions, loss, optimizer and targets: the algorithm."""
    observation_dim = env.observation_spec["observation"].shape[-1]
    spec = env.action_spec_unbatched
    mlp = partial(make_mlp, num_cells=cfg.network.num_cells, device=cfg.device)
    network = nn.Sequential(mlp(observation_dim, 2 * spec.shape[-1]), NormalParamExtractor())
    actor = ProbabilisticActor(
        TensorDictModule(network, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        spec=spec,
        distribution_class=TanhNormal,
        distribution_kwargs={"low": spec.space.low, "high": spec.space.high},
        return_log_prob=False,
    )
    qvalues = [
        ValueOperator(mlp(observation_dim + spec.shape[-1], 1), in_keys=["observation", "action"])
        for _ in range(2)
    ]
    loss = SACLoss(
        actor,
        qvalues,
        # The loss sees scaled rewards; (alpha, r) and (c alpha, c r) are the same problem.
        alpha_init=cfg.loss.temperature * cfg.training.reward_scale,
        fixed_alpha=True,
    ).to(cfg.device)
    loss.make_value_estimator(gamma=cfg.loss.gamma)
    optimizer, scheduler, target_updater = make_updaters(
        loss, loss.qvalue_network_params.parameters(), loss.actor_network_params.parameters(), cfg
    )
    return OffPolicyAgent(
        policy=actor,
        explorer=actor,
        loss=loss,
        optimizer=optimizer,
        scheduler=scheduler,
        target_updater=target_updater,
    )


@hydra.main(version_base="1.3", config_path="conf", config_name="sac")
def main(cfg: DictConfig) -> None:
    """Train and evaluate."""
    run_off_policy_recipe(cfg, make_agent)


if __name__ == "__main__":
    main()
