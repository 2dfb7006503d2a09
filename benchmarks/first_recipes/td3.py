"""TD3 of TorchRL, a baseline with the networks of soft Q-learning.

    python recipes/td3.py seed=1
    python recipes/td3.py task=hopper

The actor and all targets take a step at every second update, ``loss.actor_interval``.
"""

import os
from functools import partial

os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")  # read when torchrl is imported
if __name__ == "__main__":  # before torch is imported, which takes seconds
    from command_line import answer_help

    answer_help(__doc__, "td3")

import hydra
from omegaconf import DictConfig
from tensordict.nn import TensorDictModule, TensorDictSequential
from torchrl.envs import EnvBase
from torchrl.modules import TanhModule, ValueOperator
from torchrl.objectives import TD3Loss

from torchrl_stein.training import (
    OffPolicyAgent,
    make_explorer,
    make_mlp,
    make_updaters,
    run_off_policy_recipe,
)


def make_agent(cfg: DictConfig, env: EnvBase) -> OffPolicyAgent:
    """Deterministic actor, two Q-functions, loss, optimizer and targets: the algorithm."""
    observation_dim = env.observation_spec["observation"].shape[-1]
    spec = env.action_spec_unbatched
    mlp = partial(make_mlp, num_cells=cfg.network.num_cells, device=cfg.device)
    actor = TensorDictSequential(
        TensorDictModule(mlp(observation_dim, spec.shape[-1]), ["observation"], ["raw"]),
        TanhModule(in_keys=["raw"], out_keys=["action"], spec=spec),
    )
    qvalues = [
        ValueOperator(mlp(observation_dim + spec.shape[-1], 1), in_keys=["observation", "action"])
        for _ in range(2)
    ]
    loss = TD3Loss(
        actor,
        qvalues,
        action_spec=spec,
        policy_noise=cfg.loss.policy_noise,
        noise_clip=cfg.loss.noise_clip,
        loss_function="l2",
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
        actor_interval=cfg.loss.actor_interval,
    )


@hydra.main(version_base="1.3", config_path="conf", config_name="td3")
def main(cfg: DictConfig) -> None:
    """Train and evaluate."""
    run_off_policy_recipe(cfg, make_agent)


if __name__ == "__main__":
    main()
