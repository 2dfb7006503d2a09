"""Stein soft actor-critic (Messaoud et al. 2024, arXiv:2405.00987): S2AC.

A Gaussian whose particles climb the Q-function by a few steps of SVGD and know their density.

    python recipes/s2ac.py seed=1
    python recipes/s2ac.py task=hopper loss.step_size=0.02
    python recipes/s2ac.py loss.num_steps=0 loss.num_action_samples=1  # SAC

The networks are smooth (SiLU), as the Hessian of a ReLU network says nothing. An update takes tens
of times that of sac.py: it differentiates through each step, twice and three times. Exploration is
the policy's own: the settings ``exploration`` of a task are not used.
"""

from typing import Literal

from torchrl_stein.runs.settings import (
    BaselineLoss,
    Count,
    Exploration,
    Index,
    LearntAlphaOptim,
    OffPolicySettings,
    Positive,
    Target,
    check_command_line,
)


class Loss(BaselineLoss):
    """Arguments of SVGDActor, and the discount."""

    temperature: Positive
    fixed_alpha: bool
    target_entropy: float | Literal["auto"]
    num_action_samples: Count
    num_steps: Index
    step_size: Positive
    bound_step: bool
    num_probes: Count
    kernel: Target


class Settings(OffPolicySettings):
    """conf/s2ac.yaml."""

    recipe: Literal["s2ac"]
    loss: Loss
    optim: LearntAlphaOptim
    exploration: Exploration | None = None  # of a task; the policy explores by itself


if __name__ == "__main__":  # before torch is imported, which takes seconds
    check_command_line(__file__, Settings, __doc__)

from functools import partial

import hydra
import torch
from omegaconf import DictConfig
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import NormalParamExtractor
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import EnvBase
from torchrl.modules import ValueOperator
from torchrl.objectives import HardUpdate, SoftUpdate

from torchrl_stein.modules import SVGDActor
from torchrl_stein.objectives import EntropyTarget, S2ACLoss
from torchrl_stein.runs import (
    SeedFolders,
    Session,
    build,
    compiled,
    draw_run,
    evaluate,
    load_pretrained,
    log_episode,
    make_configured_task,
    make_mlp,
    make_reward_scaling,
    one_per_seed,
    rows_of_seeds,
    seeds_of_rows,
)


def make_loss(cfg: Settings, env: EnvBase) -> S2ACLoss:
    """Two Q-functions, the policy that climbs them and the loss over both."""
    observation_dim = env.observation_spec["observation"].shape[-1]
    spec, cells = env.action_spec_unbatched, cfg.network.num_cells
    size, action_dim = observation_dim + spec.shape[-1], spec.shape[-1]
    mlp = partial(make_mlp, num_cells=cells, device=cfg.device, activation=nn.SiLU, seeds=cfg.seeds)
    qvalues = [ValueOperator(mlp(size, 1), in_keys=["observation", "action"]) for _ in range(2)]
    # The loss sees scaled rewards; (alpha, r) and (c alpha, c r) are the same problem.
    alpha = cfg.loss.temperature * cfg.training.temperature_scale
    alpha_init = one_per_seed(alpha, cfg.seeds)
    actor = SVGDActor(
        nn.Sequential(mlp(observation_dim, 2 * action_dim), NormalParamExtractor()),
        qvalues,
        action_spec=spec,
        temperature=alpha_init,
        num_action_samples=cfg.loss.num_action_samples,
        num_steps=cfg.loss.num_steps,
        step_size=cfg.loss.step_size,
        bound_step=cfg.loss.bound_step,
        num_probes=cfg.loss.num_probes,
        kernel=build(cfg.loss.kernel),
    )
    learnt = EntropyTarget(cfg.loss.target_entropy, alpha_init=alpha_init)
    loss = S2ACLoss(actor, qvalues, temperature=alpha if cfg.loss.fixed_alpha else learnt)
    return loss.to(cfg.device).make_value_estimator(gamma=cfg.loss.gamma)


@hydra.main(version_base="1.3", config_path="conf", config_name="s2ac")
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
        temperatures = [] if cfg.loss.fixed_alpha else [loss.log_alpha]
        optim = torch.optim.Adam(
            [
                {
                    "params": list(loss.qvalue_network_params.parameters()),
                    "lr": cfg.optim.lr_qvalue,
                },
                {"params": list(loss.actor_network_params.parameters()), "lr": cfg.optim.lr_actor},
                {"params": temperatures, "lr": cfg.optim.lr_alpha},
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
            actor.copy_critic(loss.qvalue_network_params)

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
        collector = Collector(
            env,
            actor,
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
