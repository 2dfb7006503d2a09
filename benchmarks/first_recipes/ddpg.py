"""DDPG, the unimodal baseline of soft Q-learning.

    python recipes/ddpg.py seed=1                       # the multi-goal world
    python recipes/ddpg.py task=swimmer_finish_line     # with Ornstein-Uhlenbeck noise

Loss and exploration are TorchRL's; networks, buffer, schedule and evaluation are soft_q.py's.
"""

import os
from functools import partial

os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")  # read when torchrl is imported
if __name__ == "__main__":  # before torch is imported, which takes seconds
    from command_line import answer_help

    answer_help(__doc__, "ddpg")

import hydra
from omegaconf import DictConfig
from tensordict.nn import TensorDictModule, TensorDictSequential
from torchrl.envs import EnvBase
from torchrl.modules import TanhModule, ValueOperator
from torchrl.objectives import DDPGLoss

from torchrl_stein.training import (
    OffPolicyAgent,
    make_explorer,
    make_mlp,
    make_updaters,
    run_off_policy_recipe,
)


def make_agent(cfg: DictConfig, env: EnvBase) -> OffPolicyAgent:
    """Deterministic actor, Q-function, loss, optimizer and targets: the algorithm."""
    observation_dim = env.observation_spec["observation"].shape[-1]
    action_dim = env.action_spec.shape[-1]
    mlp = partial(make_mlp, num_cells=cfg.network.num_cells, device=cfg.device)
    actor = TensorDictSequential(
        TensorDictModule(mlp(observation_dim, action_dim), ["observation"], ["raw"]),
        TanhModule(in_keys=["raw"], out_keys=["action"], spec=env.action_spec_unbatched),
    )
    qvalue = ValueOperator(mlp(observation_dim + action_dim, 1), in_keys=["observation", "action"])
    loss = DDPGLoss(actor, qvalue, delay_actor=True, delay_value=True).to(cfg.device)
    loss.make_value_estimator(gamma=cfg.loss.gamma)
    optimizer, scheduler, target_updater = make_updaters(
        loss, loss.value_network_params.parameters(), loss.actor_network_params.parameters(), cfg
    )
    return OffPolicyAgent(
        policy=actor,
        explorer=make_explorer(actor, env.action_spec, **cfg.exploration),
        loss=loss,
        optimizer=optimizer,
        scheduler=scheduler,
        target_updater=target_updater,
    )


@hydra.main(version_base="1.3", config_path="conf", config_name="ddpg")
def main(cfg: DictConfig) -> None:
    """Train and evaluate."""
    run_off_policy_recipe(cfg, make_agent)


if __name__ == "__main__":
    main()
