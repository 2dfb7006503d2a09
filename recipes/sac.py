"""Soft actor-critic of TorchRL, a unimodal baseline with the networks of soft Q-learning.

    python recipes/sac.py seed=1
    python recipes/sac.py task=swimmer

The temperature is fixed, as in the first version of the algorithm and in soft Q-learning; two
Q-networks and no value network, as in the second.
"""

import os
import sys
from functools import partial

os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")  # read when torchrl is imported

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.envs import EnvBase
from torchrl.modules import ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import SACLoss

from torchrl_stein.training import (
    OffPolicyAgent,
    make_mlp,
    make_updaters,
    resumed_config,
    train_off_policy_run,
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
    cfg = resumed_config(cfg, HydraConfig.get().overrides.task)
    config = OmegaConf.to_container(cfg, resolve=True)
    run, _, complete = train_off_policy_run(config, lambda env: make_agent(cfg, env))
    run.close()
    if not complete:
        sys.exit(130)  # the shell's code for Ctrl-C; the checkpoint is written


if __name__ == "__main__":
    main()
