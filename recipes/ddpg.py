"""DDPG, the unimodal baseline of soft Q-learning.

    python recipes/ddpg.py seed=1                       # the multi-goal world
    python recipes/ddpg.py task=swimmer_finish_line     # with Ornstein-Uhlenbeck noise

Loss and exploration are TorchRL's; networks, buffer, schedule and evaluation are soft_q.py's.
"""

from typing import Literal

from torchrl_stein.runs.settings import (
    BaselineLoss,
    DeterministicSettings,
    check_command_line,
)


class Settings(DeterministicSettings):
    """conf/ddpg.yaml."""

    recipe: Literal["ddpg"]
    loss: BaselineLoss


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

from torchrl_stein.runs import (
    SeedFolders,
    Session,
    compiled,
    draw_run,
    evaluate,
    load_pretrained,
    log_episode,
    make_configured_task,
    make_explorer,
    make_mlp,
    make_parameter_noise,
    make_reward_scaling,
    rows_of_seeds,
    seeds_of_rows,
)


def make_loss(cfg: Settings, env: EnvBase) -> DDPGLoss:
    """Deterministic actor, Q-function and the loss over both."""
    observation_dim = env.observation_spec["observation"].shape[-1]
    spec, cells = env.action_spec_unbatched, cfg.network.num_cells
    mlp = make_mlp(observation_dim, spec.shape[-1], cells, cfg.device, seeds=cfg.seeds)
    actor = TensorDictSequential(
        TensorDictModule(mlp, ["observation"], ["raw"]),
        TanhModule(in_keys=["raw"], out_keys=["action"], spec=spec),
    )
    qvalue = ValueOperator(
        make_mlp(observation_dim + spec.shape[-1], 1, cells, cfg.device, seeds=cfg.seeds),
        in_keys=["observation", "action"],
    )
    loss = DDPGLoss(actor, qvalue, delay_actor=True, delay_value=True).to(cfg.device)
    loss.make_value_estimator(gamma=cfg.loss.gamma)
    return loss


@hydra.main(version_base="1.3", config_path="conf", config_name="ddpg")
def main(values: DictConfig) -> None:
    """Collect, store, learn; evaluate now and then."""
    cfg = Settings.read(values)
    with Session(cfg) as session:
        train_seed, eval_seed, _ = session.seeds
        env = make_configured_task(
            cfg.env, (*cfg.leading, cfg.env.num_envs), device=cfg.device, seed=train_seed
        )
        loss = make_loss(cfg, env)
        actor, training = loss.actor_network, cfg.training
        optim = torch.optim.Adam(
            [
                {"params": list(loss.value_network_params.parameters()), "lr": cfg.optim.lr_qvalue},
                {"params": list(loss.actor_network_params.parameters()), "lr": cfg.optim.lr_actor},
            ],
            eps=1e-8 / cfg.seeds,  # a loss is a mean over seeds: each takes its own step
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
            losses = loss(batch)
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
        threshold = cfg.exploration.parameter_noise
        noise = make_parameter_noise(actor, threshold, env.batch_size)
        on_actions = cfg.exploration.model_dump(exclude={"parameter_noise"})
        collector = Collector(
            env,
            make_explorer(actor if noise is None else noise, env.action_spec, **on_actions),
            frames_per_batch=env.numel(),
            total_frames=cfg.seeds * training.total_frames,
            init_random_frames=cfg.seeds * training.warmup_frames,
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
            parameter_noise=noise,
        )

        folders = SeedFolders(session, cfg.seeds)

        for data in session.batches(collector, total=training.total_frames, size=cfg.env.num_envs):
            kept = data.select(*loss.in_keys, strict=False)  # the loss reads nothing else
            buffer.extend(rows_of_seeds(kept, cfg.seeds))
            if session.steps <= training.warmup_frames:
                continue
            for _ in range(training.updates_per_step):
                batch = seeds_of_rows(buffer.sample(), cfg.seeds)
                losses = update(batch)
                schedule.step()
                target.step()
                if noise is not None:  # of new noise, so that its size follows the policy
                    losses["action_distance"] = noise.adapt(batch, threshold)
                session.log_update(losses, batch, lr=schedule.get_last_lr()[0])
            if session.evaluation_due:
                metrics, _ = evaluate(actor, cfg, episodes=cfg.eval.episodes, seed=eval_seed)
                folders.log_evaluation(metrics)
                session.log_histogram("train/actions", batch["action"])

        metrics, played = evaluate(actor, cfg, episodes=cfg.eval.final_episodes, seed=eval_seed)
        folders.finish(metrics)
        if cfg.seeds == 1:
            draw_run(session, cfg, played, loss)
            steps, device = cfg.eval.video_steps, cfg.device
            log_episode(session, actor, cfg.env, max_steps=steps, seed=eval_seed, device=device)


if __name__ == "__main__":
    main()
