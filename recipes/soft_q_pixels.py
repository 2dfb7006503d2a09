"""Soft Q-learning (Haarnoja et al. 2017, arXiv:1702.08165) from pixels.

One encoder makes features of a picture. Q-network and sampler read them, and only the loss of Q
trains it, as in DrQ (Kostrikov et al. 2021, arXiv:2004.13649).

    python recipes/soft_q_pixels.py seed=3    # four goals in pictures, one policy

Every setting of conf/soft_q_pixels.yaml and conf/off_policy.yaml can be given on the command line.
"""

from typing import Literal, Self

from pydantic import model_validator

from torchrl_stein.runs.settings import (
    Count,
    Exploration,
    Fraction,
    Network,
    OffPolicyOptim,
    OffPolicySettings,
    OneSeed,
    Positive,
    Section,
    check_command_line,
)


class Encoder(Network):
    """Convolutions and the number of features."""

    num_features: Count


class Loss(Section):
    """Arguments of SoftQLoss, and the discount."""

    temperature: Positive
    gamma: Fraction
    num_action_samples: Count
    num_value_samples: Count


class Settings(OffPolicySettings):
    """conf/soft_q_pixels.yaml."""

    recipe: Literal["soft_q_pixels"]
    seeds: OneSeed
    init_from: None
    encoder: Encoder
    loss: Loss
    optim: OffPolicyOptim
    exploration: Exploration

    @model_validator(mode="after")
    def _pictures(self) -> Self:
        if self.env.options.get("pixels") is None:
            raise ValueError("env.options.pixels, the size of pictures; it is missing")
        return self


if __name__ == "__main__":  # before torch is imported, which takes seconds
    check_command_line(__file__, Settings, __doc__)

import hydra
import torch
from omegaconf import DictConfig
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import EnvBase
from torchrl.modules import ConvNet, ValueOperator
from torchrl.objectives import HardUpdate, SoftUpdate

from torchrl_stein import AmortizedSVGDActor, SoftQLoss
from torchrl_stein.functional import soft_value
from torchrl_stein.runs import (
    SeedFolders,
    Session,
    compiled,
    evaluate,
    log_episode,
    make_configured_task,
    make_explorer,
    make_mlp,
    make_reward_scaling,
)


def make_encoder(cfg: Encoder, pixels: int) -> TensorDictSequential:
    """What makes features [*B, F] of pictures, uint8 [*B, 3, P, P]."""
    network = nn.Sequential(
        ConvNet(num_cells=cfg.num_cells, kernel_sizes=3, strides=2),
        nn.LazyLinear(cfg.num_features),
        nn.LayerNorm(cfg.num_features),
        nn.Tanh(),
    )
    network(torch.zeros(3, pixels, pixels))  # lazy layers learn what they read
    return TensorDictSequential(
        TensorDictModule(lambda x: 1.0 - x / 255.0, ["pixels"], ["ink"]),  # white paper is 0
        TensorDictModule(network, ["ink"], ["features"]),
    )


def make_loss(cfg: Settings, env: EnvBase) -> SoftQLoss:
    """Encoder, sampler, Q-function and the loss over them."""
    spec, pixels = env.action_spec_unbatched, env.observation_spec["pixels"].shape[-1]
    size, cells = cfg.encoder.num_features + spec.shape[-1], cfg.network.num_cells
    sampler = make_mlp(size, spec.shape[-1], cells)  # reads features and the noise
    actor = AmortizedSVGDActor(sampler, action_spec=spec, in_keys=["features"])
    loss = SoftQLoss(
        actor,
        ValueOperator(make_mlp(size, 1, cells), in_keys=["features", "action"]),
        encoder=make_encoder(cfg.encoder, pixels),
        temperature=cfg.loss.temperature * cfg.training.temperature_scale,
        num_action_samples=cfg.loss.num_action_samples,
        num_value_samples=cfg.loss.num_value_samples,
        value_target=soft_value,
    )
    return loss.make_value_estimator(gamma=cfg.loss.gamma).to(cfg.device)


@hydra.main(version_base="1.3", config_path="conf", config_name="soft_q_pixels")
def main(values: DictConfig) -> None:
    """Collect, store, learn; evaluate now and then."""
    cfg = Settings.read(values)
    with Session(cfg) as session:
        train_seed, eval_seed, _ = session.seeds
        env = make_configured_task(cfg.env, cfg.env.num_envs, device=cfg.device, seed=train_seed)
        loss = make_loss(cfg, env)
        actor, training = loss.actor_network, cfg.training
        policy = TensorDictSequential(loss.encoder, actor, selected_out_keys=["action"])
        of_q = [*loss.encoder_params.parameters(), *loss.qvalue_network_params.parameters()]
        optim = torch.optim.Adam(
            [
                {"params": of_q, "lr": cfg.optim.lr_qvalue},
                {"params": list(loss.actor_network_params.parameters()), "lr": cfg.optim.lr_actor},
            ],
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.LinearLR(
            optim, 1.0, cfg.optim.final_lr_fraction, total_iters=cfg.num_updates
        )
        if cfg.optim.target_tau is not None:  # of the encoder too
            target = SoftUpdate(loss, tau=cfg.optim.target_tau)
        else:
            interval = cfg.optim.target_update_interval
            target = HardUpdate(loss, value_network_update_interval=interval)

        def update(batch: TensorDictBase) -> TensorDict:
            losses = loss(batch)
            (losses["loss_qvalue"] + losses["loss_actor"]).backward()
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
            make_explorer(policy, env.action_spec, **cfg.exploration.model_dump()),
            frames_per_batch=env.numel(),
            total_frames=training.total_frames,
            init_random_frames=training.warmup_frames,
            auto_register_policy_transforms=False,
            track_traj_ids=False,
        )
        session.track(
            loss=loss, optim=optim, schedule=schedule, target=target, buffer=buffer,
            collector=collector,
        )  # fmt: skip

        folders = SeedFolders(session, cfg.seeds)
        for data in session.batches(collector, total=training.total_frames, size=cfg.env.num_envs):
            # The loss reads nothing else: not where the point is, which only its picture tells.
            buffer.extend(data.select(*loss.in_keys, strict=False).reshape(-1))
            if session.steps <= training.warmup_frames:
                continue
            for _ in range(training.updates_per_step):
                batch = buffer.sample()
                losses = update(batch)
                schedule.step()
                target.step()
                session.log_update(losses, batch, lr=schedule.get_last_lr()[0])
            if session.evaluation_due:
                metrics, _ = evaluate(policy, cfg, episodes=cfg.eval.episodes, seed=eval_seed)
                folders.log_evaluation(metrics)

        metrics, _ = evaluate(policy, cfg, episodes=cfg.eval.final_episodes, seed=eval_seed)
        folders.finish(metrics)
        filmed = {"max_steps": cfg.eval.video_steps, "seed": eval_seed, "device": cfg.device}
        log_episode(session, policy, cfg.env, **filmed)


if __name__ == "__main__":
    main()
