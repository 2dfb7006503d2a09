"""D4PG: DDPG with a distributional critic, n-step returns and prioritized replay.

    python recipes/d4pg.py seed=1
    python recipes/d4pg.py task=hopper
    python recipes/d4pg.py task=hopper env.num_envs=32 training.updates_per_step=32   # 32 actors

The atoms of the critic are in units of the return's running scale, so that -5 to 5 suit any task;
with ``training.reward_scale=1`` give the bounds of the return, ``loss.v_min`` and ``loss.v_max``.
"""

from typing import Literal, Self

from pydantic import model_validator

from torchrl_stein.runs.settings import (
    BaselineLoss,
    Count,
    Exploration,
    Fraction,
    NonNegative,
    Number,
    OffPolicyOptim,
    OffPolicySettings,
    OneSeed,
    Section,
    check_command_line,
)


class Loss(BaselineLoss):
    """Arguments of D4PGLoss, the discount and the steps of a return."""

    n_steps: Count
    v_min: Number
    v_max: Number
    num_atoms: Count

    @model_validator(mode="after")
    def _atoms(self) -> Self:
        if not self.v_min < self.v_max or self.num_atoms < 2:
            raise ValueError(
                "loss.v_min below loss.v_max and at least two atoms between them, num_atoms; they "
                f"are {self.v_min}, {self.v_max} and {self.num_atoms}"
            )
        return self


class Replay(Section):
    """How priorities decide what is learnt from."""

    priority_exponent: NonNegative
    importance_exponent: Fraction


class Settings(OffPolicySettings):
    """conf/d4pg.yaml."""

    recipe: Literal["d4pg"]
    seeds: OneSeed  # a transition has one priority, not one for each seed
    loss: Loss
    optim: OffPolicyOptim
    replay: Replay
    exploration: Exploration

    @model_validator(mode="after")
    def _steps_before_updates(self) -> Self:
        needed = self.loss.n_steps * self.env.num_envs
        if self.training.warmup_frames < needed:
            raise ValueError(
                f"training.warmup_frames of at least loss.n_steps * env.num_envs = {needed}, "
                f"before which no return is complete; it is {self.training.warmup_frames}"
            )
        return self


if __name__ == "__main__":  # before torch is imported, which takes seconds
    check_command_line(__file__, Settings, __doc__)

import hydra
import torch
from omegaconf import DictConfig
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictSequential
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictPrioritizedReplayBuffer
from torchrl.envs import Compose, EnvBase
from torchrl.modules import TanhModule, ValueOperator
from torchrl.objectives import HardUpdate, SoftUpdate

from torchrl_stein.envs import NStepReturns
from torchrl_stein.objectives import D4PGLoss
from torchrl_stein.runs import (
    Session,
    compiled,
    draw_run,
    evaluate,
    load_pretrained,
    log_episode,
    make_configured_task,
    make_explorer,
    make_mlp,
    make_reward_scaling,
)


def make_loss(cfg: Settings, env: EnvBase) -> D4PGLoss:
    """Deterministic actor, a critic with one logit for each atom, and the loss over both."""
    observation_dim = env.observation_spec["observation"].shape[-1]
    spec, cells = env.action_spec_unbatched, cfg.network.num_cells
    actor = TensorDictSequential(
        TensorDictModule(
            make_mlp(observation_dim, spec.shape[-1], cells, cfg.device), ["observation"], ["raw"]
        ),
        TanhModule(in_keys=["raw"], out_keys=["action"], spec=spec),
    )
    critic = ValueOperator(
        make_mlp(observation_dim + spec.shape[-1], cfg.loss.num_atoms, cells, cfg.device),
        in_keys=["observation", "action"],
    )
    loss = D4PGLoss(
        actor,
        critic,
        v_min=cfg.loss.v_min,
        v_max=cfg.loss.v_max,
        num_atoms=cfg.loss.num_atoms,
    ).to(cfg.device)
    return loss.make_value_estimator(gamma=cfg.loss.gamma)


@hydra.main(version_base="1.3", config_path="conf", config_name="d4pg")
def main(values: DictConfig) -> None:
    """Collect, store, learn; evaluate now and then."""
    cfg = Settings.read(values)
    with Session(cfg) as session:
        train_seed, eval_seed, _ = session.seeds
        env = make_configured_task(cfg.env, cfg.env.num_envs, device=cfg.device, seed=train_seed)
        loss = make_loss(cfg, env)
        actor, training = loss.actor_network, cfg.training
        optim = torch.optim.Adam(
            [
                {"params": list(loss.value_network_params.parameters()), "lr": cfg.optim.lr_qvalue},
                {"params": list(loss.actor_network_params.parameters()), "lr": cfg.optim.lr_actor},
            ],
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
            (losses["loss_value"] + losses["loss_actor"]).backward()
            optim.step()
            optim.zero_grad()
            # Returned, as a CUDA graph writes into a batch of its own.
            return losses.detach().set("td_error", batch["td_error"])

        update = compiled(update, cfg.compile, optim, losses=[loss])
        buffer = TensorDictPrioritizedReplayBuffer(
            alpha=cfg.replay.priority_exponent,
            beta=cfg.replay.importance_exponent,
            storage=LazyTensorStorage(training.buffer_size, device=cfg.device),
            batch_size=training.batch_size,
            # Data pass them from the last to the first: the scale sees each step by itself.
            transform=Compose(
                NStepReturns(cfg.loss.n_steps, gamma=cfg.loss.gamma),
                make_reward_scaling(training.reward_scale, env, cfg.loss.gamma),
            ),
            # TorchRL's packages have no trees for CUDA and refuse a storage that is there.
            sampler_device="cpu",
        )
        collector = Collector(
            env,
            make_explorer(actor, env.action_spec, **cfg.exploration.model_dump()),
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

        for data in session.batches(collector, total=training.total_frames):
            buffer.extend(data.select(*loss.in_keys, strict=False))  # the loss reads nothing else
            if session.steps <= training.warmup_frames:
                continue
            for _ in range(training.updates_per_step):
                batch = buffer.sample()
                losses = update(batch)
                buffer.update_priority(batch["index"], losses["td_error"])
                schedule.step()
                target.step()
                session.log_update(losses, batch, lr=schedule.get_last_lr()[0])
            if session.evaluation_due:
                metrics, _ = evaluate(actor, cfg, episodes=cfg.eval.episodes, seed=eval_seed)
                session.log_evaluation(metrics[0])
                session.log_histogram("train/actions", batch["action"])

        metrics, played = evaluate(actor, cfg, episodes=cfg.eval.final_episodes, seed=eval_seed)
        session.finish(metrics[0])
        draw_run(session, cfg, played, loss)
        steps, device = cfg.eval.video_steps, cfg.device
        log_episode(session, actor, cfg.env, max_steps=steps, seed=eval_seed, device=device)


if __name__ == "__main__":
    main()
