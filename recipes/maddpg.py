"""MADDPG (Lowe et al. 2017, arXiv:1706.02275): critics that see all agents, actors that do not.

    python recipes/maddpg.py seed=1
    python recipes/maddpg.py env.options.num_agents=5

Each agent is a row of the batch, with an actor and a critic of its own; to its critic, what the
others observe and do is a part of the state. The loss is then TorchRL's DDPGLoss as it is. With
TorchRL's MultiAgentMLP(centralized=True) instead, that loss would hand the actions of all present
policies to every critic, and agent i would follow the sum over j of dQ_j/da_i.
"""

from typing import Literal

from torchrl_stein.runs.settings import (
    BaselineLoss,
    Exploration,
    MultiAgentEnvironment,
    OffPolicyOptim,
    OffPolicySettings,
    OneSeed,
    check_command_line,
)


class Settings(OffPolicySettings):
    """conf/maddpg.yaml."""

    recipe: Literal["maddpg"]
    seeds: OneSeed
    env: MultiAgentEnvironment
    loss: BaselineLoss
    optim: OffPolicyOptim
    exploration: Exploration


if __name__ == "__main__":  # before torch is imported, which takes seconds
    check_command_line(__file__, Settings, __doc__)

import hydra
import torch
from omegaconf import DictConfig
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictSequential
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import EnvBase
from torchrl.modules import TanhModule, ValueOperator
from torchrl.objectives import DDPGLoss, HardUpdate, SoftUpdate

from torchrl_stein.modules import AgentsActor, add_others, agent_rows
from torchrl_stein.runs import (
    Session,
    compiled,
    evaluate,
    load_pretrained,
    log_episode,
    make_configured_task,
    make_explorer,
    make_mlp,
    make_reward_scaling,
)

OBSERVATION, ACTION = ("agents", "observation"), ("agents", "action")


def make_loss(cfg: Settings, env: EnvBase) -> DDPGLoss:
    """An actor and a centralised critic for each agent, and the loss over rows of agents."""
    n, observation_dim = env.observation_spec[OBSERVATION].shape[-2:]
    box, cells = env.full_action_spec_unbatched[ACTION][0], cfg.network.num_cells
    action_dim = box.shape[-1]
    actors = make_mlp(observation_dim, action_dim, cells, cfg.device, seeds=n)
    actor = TensorDictSequential(
        TensorDictModule(actors, ["observation"], ["raw"]),
        TanhModule(in_keys=["raw"], out_keys=["action"], spec=box),
    )
    qvalue = ValueOperator(
        make_mlp(n * (observation_dim + action_dim), 1, cells, cfg.device, seeds=n),
        in_keys=["observation", "action", "others"],
    )
    loss = DDPGLoss(actor, qvalue, delay_actor=True, delay_value=True).to(cfg.device)
    loss.make_value_estimator(gamma=cfg.loss.gamma)
    return loss


def as_rows(batch: TensorDictBase, loss: DDPGLoss) -> TensorDictBase:
    """What each agent has seen and done, with what the others did, and then would do.

    The first are actions of the buffer, the second of the target policies: algorithm 1.
    """
    rows = agent_rows(batch)
    target, actor = loss.target_actor_network_params, loss.actor_network
    with torch.no_grad(), target.to_module(actor, preserve_module_state=False):
        actor(rows["next"])
    add_others(rows)
    add_others(rows["next"])
    return rows.select(*loss.in_keys, strict=False)


@hydra.main(version_base="1.3", config_path="conf", config_name="maddpg")
def main(values: DictConfig) -> None:
    """Collect, store, learn; evaluate now and then."""
    cfg = Settings.read(values)
    with Session(cfg) as session:
        train_seed, eval_seed, _ = session.seeds
        env = make_configured_task(cfg.env, cfg.env.num_envs, device=cfg.device, seed=train_seed)
        loss = make_loss(cfg, env)
        actor, training = AgentsActor(loss.actor_network), cfg.training
        n = env.observation_spec[OBSERVATION].shape[-2]
        optim = torch.optim.Adam(
            [
                {"params": list(loss.value_network_params.parameters()), "lr": cfg.optim.lr_qvalue},
                {"params": list(loss.actor_network_params.parameters()), "lr": cfg.optim.lr_actor},
            ],
            eps=1e-8 / n,  # a loss is a mean over agents: each takes its own step
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.LinearLR(
            optim, 1.0, cfg.optim.final_lr_fraction, total_iters=cfg.num_updates
        )
        if cfg.optim.target_tau is not None:
            target = SoftUpdate(loss, tau=cfg.optim.target_tau)
        else:
            target = HardUpdate(
                loss, value_network_update_interval=cfg.optim.target_update_interval
            )
        if cfg.init_from is not None and cfg.resume is None:
            load_pretrained(cfg.init_from, loss)  # targets too, which their updater has just set

        def update(batch: TensorDictBase) -> TensorDict:
            losses = loss(as_rows(batch, loss))
            sum(value for name, value in losses.items() if name.startswith("loss_")).backward()
            optim.step()
            optim.zero_grad()
            return losses.detach()

        update = compiled(update, cfg.compile, optim, losses=[loss])
        buffer = TensorDictReplayBuffer(
            storage=LazyTensorStorage(training.buffer_size, device=cfg.device),
            batch_size=training.batch_size,
            transform=make_reward_scaling(training.reward_scale, env, cfg.loss.gamma),
        )
        noise, spec = cfg.exploration.model_dump(), env.full_action_spec[ACTION]
        collector = Collector(
            env,
            make_explorer(actor, spec, action_key=ACTION, **noise),
            frames_per_batch=env.numel(),
            total_frames=training.total_frames,
            init_random_frames=training.warmup_frames,
            auto_register_policy_transforms=False,
            track_traj_ids=False,
        )
        session.track(
            loss=loss,
            optim=optim,
            schedule=schedule,
            target=target,
            buffer=buffer,
            collector=collector,
        )

        outcome = [("next", key) for key in (OBSERVATION, "reward", "done", "terminated")]

        for data in session.batches(collector, total=training.total_frames):
            buffer.extend(data.select(OBSERVATION, ACTION, *outcome).reshape(-1))
            if session.steps <= training.warmup_frames:
                continue
            for _ in range(training.updates_per_step):
                batch = buffer.sample()
                losses = update(batch)
                schedule.step()
                target.step()
                session.log_update(losses, batch, lr=schedule.get_last_lr()[0])
            if session.evaluation_due:
                (metrics,), _ = evaluate(actor, cfg, episodes=cfg.eval.episodes, seed=eval_seed)
                session.log_evaluation(metrics)
                session.log_histogram("train/actions", batch[ACTION])

        (metrics,), _ = evaluate(actor, cfg, episodes=cfg.eval.final_episodes, seed=eval_seed)
        session.finish(metrics)
        steps, device = cfg.eval.video_steps, cfg.device
        log_episode(session, actor, cfg.env, max_steps=steps, seed=eval_seed, device=device)


if __name__ == "__main__":
    main()
