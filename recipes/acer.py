"""Actor-critic with experience replay, ACER (Wang et al. 2017, arXiv:1611.01224).

    python recipes/acer.py                             # CartPole-v1, two actions
    python recipes/acer.py --config-name acer_pendulum # Pendulum-v1, with a dueling network
    python recipes/acer.py training.updates_per_step=1 # on-policy alone
    python recipes/acer.py resume=runs/acer/...        # go on where a run stopped

Each batch of data is learnt from once and then kept: the further updates are of rows of earlier
batches. Every setting of conf/acer.yaml and conf/off_policy.yaml can be given on the command line.
"""

from typing import Literal, Self

from pydantic import model_validator

from torchrl_stein.runs.settings import (
    AnyActions,
    Count,
    Fraction,
    NonNegative,
    OffPolicyOptim,
    OffPolicySettings,
    OffPolicyTraining,
    OneSeed,
    Positive,
    Rate,
    Section,
    check_command_line,
)


class Loss(Section):
    """Arguments of ACERLoss."""

    gamma: Fraction
    importance_bound: Positive
    kl_bound: Positive
    entropy_coeff: NonNegative | None
    num_action_samples: Count


class Training(OffPolicyTraining):
    """Numbers of the loop; the buffer holds rows of so many steps."""

    steps: Count
    reward_scale: Positive

    @model_validator(mode="after")
    def _whole_rows(self) -> Self:
        if self.batch_size % self.steps or self.buffer_size < self.batch_size:
            raise ValueError(
                "batch_size a multiple of steps, and at most buffer_size; they are "
                f"{self.batch_size}, {self.steps} and {self.buffer_size}"
            )
        return self


class Optim(OffPolicyOptim):
    """The only target is the average policy, which moves at every update."""

    target_update_interval: None
    target_tau: Rate


class Settings(OffPolicySettings):
    """conf/acer.yaml."""

    recipe: Literal["acer"]
    seeds: OneSeed
    env: AnyActions
    loss: Loss
    training: Training
    optim: Optim

    @property
    def num_updates(self) -> int:
        """Gradient steps of the whole run."""
        training, frames = self.training, self.env.num_envs * self.training.steps
        batches = -(-training.total_frames // frames)
        replayed = batches - training.warmup_frames // frames
        return batches + (training.updates_per_step - 1) * replayed


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
from torchrl.data import LazyTensorStorage, OneHot, TensorDictReplayBuffer
from torchrl.envs import EnvBase
from torchrl.modules import ProbabilisticActor, TanhNormal
from torchrl.objectives import SoftUpdate

from torchrl_stein.modules import OneHotCategorical, StochasticDuelingNetwork
from torchrl_stein.objectives import ACERLoss
from torchrl_stein.runs import (
    SeedFolders,
    Session,
    compiled,
    evaluate,
    load_pretrained,
    log_episode,
    make_configured_task,
    make_mlp,
)


def make_loss(cfg: Settings, env: EnvBase) -> ACERLoss:
    """Policy, critic and the loss over both, for choices or for a box of actions."""
    states, spec = env.observation_spec["observation"].shape[-1], env.action_spec_unbatched
    actions = spec.shape[-1]
    mlp = partial(make_mlp, num_cells=cfg.network.num_cells, device=cfg.device)
    if isinstance(spec, OneHot):
        actor = ProbabilisticActor(
            TensorDictModule(mlp(states, actions), ["observation"], ["logits"]),
            in_keys=["logits"],
            spec=spec,
            distribution_class=OneHotCategorical,
        )
        critic = TensorDictModule(mlp(states, actions), ["observation"], ["action_value"])
    else:
        network = nn.Sequential(mlp(states, 2 * actions), NormalParamExtractor())
        actor = ProbabilisticActor(
            TensorDictModule(network, ["observation"], ["loc", "scale"]),
            in_keys=["loc", "scale"],
            spec=spec,
            distribution_class=TanhNormal,
            distribution_kwargs={"low": spec.space.low, "high": spec.space.high},
        )
        critic = StochasticDuelingNetwork(mlp(states, 1), mlp(states + actions, 1))
    return ACERLoss(actor, critic, **cfg.loss.model_dump()).to(cfg.device)


@hydra.main(version_base="1.3", config_path="conf", config_name="acer")
def main(values: DictConfig) -> None:
    """Collect rows, learn from them, store them, learn from earlier ones; evaluate now and then."""
    cfg = Settings.read(values)
    with Session(cfg) as session:
        train_seed, eval_seed, _ = session.seeds
        training = cfg.training
        env = make_configured_task(cfg.env, cfg.env.num_envs, device=cfg.device, seed=train_seed)
        loss = make_loss(cfg, env)
        actor = loss.actor_network
        optim = torch.optim.Adam(
            [
                {
                    "params": list(loss.critic_network_params.parameters()),
                    "lr": cfg.optim.lr_qvalue,
                },
                {"params": list(loss.actor_network_params.parameters()), "lr": cfg.optim.lr_actor},
            ],
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.LinearLR(
            optim, 1.0, cfg.optim.final_lr_fraction, total_iters=cfg.num_updates
        )
        average = SoftUpdate(loss, tau=cfg.optim.target_tau)  # of the policy, for the trust region
        if cfg.init_from is not None and cfg.resume is None:
            load_pretrained(cfg.init_from, loss)  # the average too

        def update(batch: TensorDictBase) -> TensorDict:
            losses = loss(batch)
            sum(value for name, value in losses.items() if name.startswith("loss_")).backward()
            optim.step()
            optim.zero_grad()
            return losses.detach()

        # Two, as each CUDA graph has one shape of data.
        update_on_policy, update_replayed = (
            compiled(update, cfg.compile, optim, losses=once) for once in ([loss], [])
        )
        # Rows as they were collected, which the loss cuts where episodes end. TorchRL's
        # SliceSampler draws from within one episode, and with strict_length=True never from one
        # that is shorter than a slice, as the first of a cart-pole are.
        buffer = TensorDictReplayBuffer(
            storage=LazyTensorStorage(training.buffer_size // training.steps, device=cfg.device),
            batch_size=training.batch_size // training.steps,
        )
        collector = Collector(
            env,
            actor,
            frames_per_batch=env.numel() * training.steps,
            total_frames=training.total_frames,
            auto_register_policy_transforms=False,
            track_traj_ids=False,
        )
        session.track(
            loss=loss,
            optim=optim,
            schedule=schedule,
            average=average,
            buffer=buffer,
            collector=collector,
        )
        folders = SeedFolders(session, 1)

        for data in session.batches(collector, total=training.total_frames):
            rows = data.select(*loss.in_keys)  # the loss reads nothing else
            rows["next", "reward"] = training.reward_scale * rows["next", "reward"]
            buffer.extend(rows)
            replays = training.updates_per_step - 1 if session.steps > training.warmup_frames else 0
            for i in range(1 + replays):
                batch = rows if i == 0 else buffer.sample()
                losses = (update_on_policy if i == 0 else update_replayed)(batch)
                schedule.step()
                average.step()
                session.log_update(losses, batch, lr=schedule.get_last_lr()[0])
            if session.evaluation_due:
                metrics, _ = evaluate(actor, cfg, episodes=cfg.eval.episodes, seed=eval_seed)
                folders.log_evaluation(metrics)

        metrics, _ = evaluate(actor, cfg, episodes=cfg.eval.final_episodes, seed=eval_seed)
        folders.finish(metrics)
        steps, device = cfg.eval.video_steps, cfg.device
        log_episode(session, actor, cfg.env, max_steps=steps, seed=eval_seed, device=device)


if __name__ == "__main__":
    main()
