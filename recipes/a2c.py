"""Advantage actor-critic, synchronous (Mnih et al. 2016, arXiv:1602.01783), and what it contains.

    python recipes/a2c.py                                 # CartPole-v1
    python recipes/a2c.py --config-name a2c_pendulum      # Pendulum-v1
    python recipes/a2c.py --config-name a2c_robot env.name=HalfCheetah-v5
    python recipes/a2c.py loss.lmbda=0                    # one-step actor-critic
    python recipes/a2c.py loss.lmbda=1                    # REINFORCE with a baseline
    python recipes/a2c.py loss.lmbda=1 loss.critic_coeff=null    # without: vanilla policy gradient
    python recipes/a2c.py resume=runs/a2c/...             # go on where a run stopped

An episode that the end of a batch cuts goes on with the critic's value, 0 without a critic. Every
setting of conf/a2c.yaml and conf/on_policy.yaml can be given on the command line.
"""

from typing import Literal

from torchrl_stein.runs.settings import (
    Fraction,
    NonNegative,
    OnPolicySettings,
    Positive,
    Section,
    check_command_line,
)


class Loss(Section):
    """Arguments of TorchRL's A2CLoss and of the advantages."""

    gamma: Fraction
    lmbda: Fraction
    entropy_coeff: NonNegative | None
    critic_coeff: Positive | None


class Settings(OnPolicySettings):
    """conf/a2c.yaml."""

    recipe: Literal["a2c"]
    loss: Loss


if __name__ == "__main__":  # before torch is imported, which takes seconds
    check_command_line(__file__, Settings, __doc__)

import hydra
import torch
from omegaconf import DictConfig
from tensordict import TensorDict, TensorDictBase
from torchrl.collectors import Collector
from torchrl.envs import EnvBase
from torchrl.objectives import A2CLoss
from torchrl.objectives.value import GAE

from torchrl_stein.runs import (
    ObservationScale,
    SeedFolders,
    Session,
    compiled,
    evaluate,
    log_episode,
    make_actor_critic,
    make_configured_task,
    make_reward_scaling,
)


def make_loss(cfg: Settings, env: EnvBase) -> A2CLoss:
    """Policy, critic and the loss over both."""
    actor, critic = make_actor_critic(
        env,
        cfg.network.num_cells,
        normalize=cfg.network.normalize,
        critic_gain=0.0 if cfg.loss.critic_coeff is None else 1.0,  # untrained, it stays 0
    )
    return A2CLoss(
        actor,
        critic,
        entropy_bonus=cfg.loss.entropy_coeff is not None,
        entropy_coeff=cfg.loss.entropy_coeff,
        critic_coeff=cfg.loss.critic_coeff,
        loss_critic_type="l2",
    ).to(cfg.device)


@hydra.main(version_base="1.3", config_path="conf", config_name="a2c")
def main(values: DictConfig) -> None:
    """Collect, estimate advantages, take one step; evaluate now and then."""
    cfg = Settings.read(values)
    with Session(cfg) as session:
        train_seed, eval_seed, _ = session.seeds
        training = cfg.training
        env = make_configured_task(cfg.env, cfg.env.num_envs, device=cfg.device, seed=train_seed)
        loss = make_loss(cfg, env)
        actor, critic = loss.actor_network, loss.critic_network
        # Of lmbda = 0 these are TD(0) errors, of 1 returns minus values, and TD(lmbda) returns are
        # the value target: TorchRL's other estimators are this one. The loop over time: the
        # vectorised form takes longer where a batch holds many ends.
        advantages = GAE(
            gamma=cfg.loss.gamma, lmbda=cfg.loss.lmbda, value_network=critic, vectorized=False
        )
        rewards = make_reward_scaling(training.reward_scale, env, cfg.loss.gamma)
        scales = [part for part in actor.modules() if isinstance(part, ObservationScale)]
        optim = torch.optim.Adam(loss.parameters(), lr=cfg.optim.lr, eps=1e-5, fused=True)
        schedule = torch.optim.lr_scheduler.LinearLR(
            optim, 1.0, cfg.optim.final_lr_fraction, total_iters=cfg.iterations
        )

        def update(batch: TensorDictBase) -> TensorDict:
            losses = loss(batch)
            sum(value for name, value in losses.items() if name.startswith("loss_")).backward()
            norm = torch.nn.utils.clip_grad_norm_(loss.parameters(), cfg.optim.max_grad_norm)
            optim.step()
            optim.zero_grad()
            return losses.detach().set("grad_norm", norm)

        update = compiled(update, cfg.compile, optim, losses=[loss])
        frames = env.numel() * training.steps
        total = frames * cfg.iterations
        collector = Collector(
            env,
            actor,
            frames_per_batch=frames,
            total_frames=total,
            auto_register_policy_transforms=False,
            track_traj_ids=False,
        )
        session.track(
            loss=loss, optim=optim, schedule=schedule, rewards=rewards, collector=collector
        )
        folders = SeedFolders(session, 1)

        for data in session.batches(collector, total=total):
            rewards.inv(data)  # the running scale sees them, as a buffer would show them
            with torch.no_grad():
                rows = advantages(rewards(data)).reshape(-1)
            losses = update(rows)
            for scale in scales:  # not before: the actions are those of the old scale
                scale.update(data["observation"])
            schedule.step()
            session.log_update(losses, rows, lr=schedule.get_last_lr()[0])
            if session.evaluation_due:
                metrics, _ = evaluate(actor, cfg, episodes=cfg.eval.episodes, seed=eval_seed)
                folders.log_evaluation(metrics)

        metrics, _ = evaluate(actor, cfg, episodes=cfg.eval.final_episodes, seed=eval_seed)
        folders.finish(metrics)
        steps, device = cfg.eval.video_steps, cfg.device
        log_episode(session, actor, cfg.env, max_steps=steps, seed=eval_seed, device=device)


if __name__ == "__main__":
    main()
