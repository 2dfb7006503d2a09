"""Soft actor-critic of TorchRL, a unimodal baseline with the networks of soft Q-learning.

    python recipes/sac.py seed=1
    python recipes/sac.py task=swimmer
    python recipes/sac.py task=hopper critics=crossq  # CrossQ (Bhatt et al. 2024)

Two Q-networks and no value network, as in the second version of the algorithm. The temperature
is fixed on the multi-goal world, as in soft Q-learning, and learnt on robots, as published.
Exploration is the policy's own: the settings ``exploration`` of a task are not used.
"""

from typing import Literal, Self

from pydantic import model_validator

from torchrl_stein.runs.settings import (
    BaselineLoss,
    Count,
    CriticNetwork,
    CrossQOptim,
    Exploration,
    OffPolicySettings,
    Positive,
    check_command_line,
)


class Loss(BaselineLoss):
    """Arguments of SACLoss, and the discount."""

    temperature: Positive
    fixed_alpha: bool
    target_entropy: float | Literal["auto"]
    loss_function: Literal["smooth_l1", "l2"]
    actor_interval: Count = 1  # of runs that were saved without it


class Settings(OffPolicySettings):
    """conf/sac.yaml."""

    recipe: Literal["sac"]
    network: CriticNetwork
    loss: Loss
    optim: CrossQOptim
    exploration: Exploration | None = None  # of a task; the policy explores by itself

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.network.norm == "batch_renorm" and self.seeds > 1:
            # CrossQLoss sets both halves of its batch side by side in the dimension of seeds.
            raise ValueError(
                f"seeds=1 with network.norm=batch_renorm; it is {self.seeds}. --multirun "
                "seed=0,1,2 makes one run after the other"
            )
        if self.network.norm != "batch_renorm" and self.loss.actor_interval > 1:
            raise ValueError(  # SACLoss has no loss of its critics alone
                "loss.actor_interval=1 but for network.norm=batch_renorm; it is "
                f"{self.loss.actor_interval}"
            )
        return self


if __name__ == "__main__":  # before torch is imported, which takes seconds
    check_command_line(__file__, Settings, __doc__)

from functools import partial

import hydra
import torch
from omegaconf import DictConfig
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import EnvBase
from torchrl.modules import ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import CrossQLoss, HardUpdate, SACLoss, SoftUpdate

from torchrl_stein.runs import (
    NORMS,
    SeedFolders,
    SeedsSACLoss,
    Session,
    compiled,
    draw_run,
    evaluate,
    load_pretrained,
    log_episode,
    make_configured_task,
    make_mlp,
    make_reward_scaling,
    rows_of_seeds,
    seeds_of_rows,
)


def make_loss(cfg: Settings, env: EnvBase) -> SACLoss | CrossQLoss:
    """Squashed Gaussian, two Q-functions and the loss over them."""
    observation_dim = env.observation_spec["observation"].shape[-1]
    spec, cells = env.action_spec_unbatched, cfg.network.num_cells
    mlp = make_mlp(observation_dim, 2 * spec.shape[-1], cells, cfg.device, seeds=cfg.seeds)
    actor = ProbabilisticActor(
        TensorDictModule(
            nn.Sequential(mlp, NormalParamExtractor()), ["observation"], ["loc", "scale"]
        ),
        in_keys=["loc", "scale"],
        spec=spec,
        distribution_class=TanhNormal,
        distribution_kwargs={"low": spec.space.low, "high": spec.space.high},
        return_log_prob=False,
    )
    qvalues = [
        ValueOperator(
            make_mlp(
                observation_dim + spec.shape[-1],
                1,
                cells,
                cfg.device,
                norm=NORMS[cfg.network.norm],
                seeds=cfg.seeds,
            ),
            in_keys=["observation", "action"],
        )
        for _ in range(2)
    ]
    if cfg.network.norm == "batch_renorm":
        # torch.vmap of batch normalization takes longer. But TorchRL's loop in its place is traced
        # anew at every call, as it changes a table of pytrees.
        make = partial(CrossQLoss, deactivate_vmap=not cfg.compile.compile)
    else:
        make = SACLoss if cfg.seeds == 1 else partial(SeedsSACLoss, seeds=cfg.seeds)
    loss = make(
        actor,
        qvalues,
        # The loss sees scaled rewards; (alpha, r) and (c alpha, c r) are the same problem.
        alpha_init=cfg.loss.temperature * cfg.training.temperature_scale,
        fixed_alpha=cfg.loss.fixed_alpha,
        target_entropy=cfg.loss.target_entropy,
        action_spec=spec,
        loss_function=cfg.loss.loss_function,
    ).to(cfg.device)
    loss.make_value_estimator(gamma=cfg.loss.gamma)
    return loss


@hydra.main(version_base="1.3", config_path="conf", config_name="sac")
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
            betas=(cfg.optim.beta1, 0.999),
            eps=1e-8 / cfg.seeds,  # a loss is a mean over seeds: each takes its own step
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.LinearLR(
            optim, 1.0, cfg.optim.final_lr_fraction, total_iters=cfg.num_updates
        )
        if cfg.network.norm == "batch_renorm":
            target = None  # CrossQ has no target networks
        elif cfg.optim.target_tau is not None:
            target = SoftUpdate(loss, tau=cfg.optim.target_tau)
        else:
            target = HardUpdate(
                loss, value_network_update_interval=cfg.optim.target_update_interval
            )
        if cfg.init_from is not None and cfg.resume is None:
            load_pretrained(cfg.init_from, loss)  # targets too, which their updater has just set

        def update(batch: TensorDictBase, actor_learns: bool) -> TensorDict:
            if actor_learns:
                losses = loss(batch)
            else:
                losses = TensorDict({"loss_qvalue": loss.qvalue_loss(batch)[0]})
            sum(value for name, value in losses.items() if name.startswith("loss_")).backward()
            optim.step()
            optim.zero_grad()
            return losses.detach()

        # Of critics alone, where the actor waits, and of all; each whole, as TD3's are.
        kinds = [(True, loss)]
        if cfg.loss.actor_interval > 1:
            kinds.insert(0, (False, loss.qvalue_loss))
        updates = [
            compiled(partial(update, actor_learns=both), cfg.compile, optim, losses=[called])
            for both, called in kinds
        ]
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
                actor_learns = (session.updates + 1) % cfg.loss.actor_interval == 0
                losses = updates[-1 if actor_learns else 0](batch)
                schedule.step()
                if target is not None:
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
