"""Proximal policy optimization (Schulman et al. 2017, arXiv:1707.06347).

    python recipes/ppo.py                                 # CartPole-v1, clipped ratios
    python recipes/ppo.py ppo_loss=kl_penalty             # a KL penalty that adapts
    python recipes/ppo.py --config-name ppo_pendulum      # Pendulum-v1
    python recipes/ppo.py --config-name ppo_robot env.name=HalfCheetah-v5   # settings of CleanRL
    python recipes/ppo.py env.name=cartpole_swingup env.num_envs=64         # a batched world
    python recipes/ppo.py resume=runs/ppo/...             # go on where a run stopped

Every setting of conf/ppo.yaml and conf/on_policy.yaml can be given on the command line.
"""

from typing import Literal, Self

from pydantic import model_validator

from torchrl_stein.runs.settings import (
    Count,
    Fraction,
    NonNegative,
    OnPolicySettings,
    OnPolicyTraining,
    Positive,
    Section,
    check_command_line,
)


class Loss(Section):
    """Arguments of TorchRL's PPO losses; conf/ppo_loss has those of each."""

    name: Literal["clip", "kl_penalty"]
    gamma: Fraction
    lmbda: Fraction
    entropy_coeff: NonNegative | None
    critic_coeff: Positive
    clip_epsilon: Fraction | None
    kl_target: Positive | None
    kl_coeff: Positive | None

    @model_validator(mode="after")
    def _its_own(self) -> Self:
        of_clip, of_penalty = [self.clip_epsilon], [self.kl_target, self.kl_coeff]
        own, other = (of_clip, of_penalty) if self.name == "clip" else (of_penalty, of_clip)
        if None in own or any(value is not None for value in other):
            raise ValueError(
                "clip_epsilon with name=clip, kl_target and kl_coeff with name=kl_penalty, not both"
            )
        return self


class Training(OnPolicyTraining):
    """Numbers of the loop."""

    num_epochs: Count
    num_minibatches: Count


class Settings(OnPolicySettings):
    """conf/ppo.yaml."""

    recipe: Literal["ppo"]
    loss: Loss
    training: Training

    @model_validator(mode="after")
    def _fits(self) -> Self:
        rows = self.env.num_envs * self.training.steps
        if rows % self.training.num_minibatches:
            raise ValueError(
                f"training.num_minibatches that divides the {rows} transitions of an iteration"
            )
        waits = self.loss.entropy_coeff is not None and not self.compile.compile
        if self.compile.cudagraphs and (waits or self.loss.name == "kl_penalty"):
            raise ValueError(
                "loss.name=clip with compile.cudagraphs, and loss.entropy_coeff=null or "
                "compile.compile=true: TorchRL's other losses look at numbers"
            )
        return self


if __name__ == "__main__":  # before torch is imported, which takes seconds
    check_command_line(__file__, Settings, __doc__)

import hydra
import torch
from omegaconf import DictConfig
from tensordict import TensorDict, TensorDictBase
from torchrl.collectors import Collector
from torchrl.envs import EnvBase
from torchrl.objectives import ClipPPOLoss, KLPENPPOLoss
from torchrl.objectives.value import GAE

from torchrl_stein.functional import adapt_kl_penalty
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


def make_loss(cfg: Settings, env: EnvBase) -> ClipPPOLoss | KLPENPPOLoss:
    """Policy, critic and the loss over both."""
    actor, critic = make_actor_critic(env, cfg.network.num_cells, normalize=cfg.network.normalize)
    # Values are not clipped: TorchRL then looks at a number in every call, and Andrychowicz et al.
    # 2021 (arXiv:2006.05990) found that it does not help.
    shared = {
        "entropy_bonus": cfg.loss.entropy_coeff is not None,
        "entropy_coeff": cfg.loss.entropy_coeff,
        "critic_coeff": cfg.loss.critic_coeff,
        "loss_critic_type": "l2",
        "normalize_advantage": True,  # in each minibatch
    }
    if cfg.loss.name == "clip":
        loss = ClipPPOLoss(actor, critic, clip_epsilon=cfg.loss.clip_epsilon, **shared)
    else:
        # TorchRL has the paper's thresholds, but applies them in every call: in the first
        # minibatch, where the policy is still the old one, the coefficient is always halved. With
        # factors of 1 it stays as it is, and the loop adapts it once in an iteration.
        loss = KLPENPPOLoss(
            actor, critic, beta=cfg.loss.kl_coeff, increment=1.0, decrement=1.0, **shared
        )
    return loss.to(cfg.device)


@hydra.main(version_base="1.3", config_path="conf", config_name="ppo")
def main(values: DictConfig) -> None:
    """Collect, estimate advantages, pass over the data several times; evaluate now and then."""
    cfg = Settings.read(values)
    with Session(cfg) as session:
        train_seed, eval_seed, _ = session.seeds
        training = cfg.training
        env = make_configured_task(cfg.env, cfg.env.num_envs, device=cfg.device, seed=train_seed)
        loss = make_loss(cfg, env)
        actor, critic = loss.actor_network, loss.critic_network
        # The loop over time: the vectorised form takes longer where a batch holds many ends.
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

        # The penalty looks at the KL divergence, which torch.compile cannot pass over.
        traced = [loss] if cfg.loss.name == "clip" else []
        update = compiled(update, cfg.compile, optim, losses=traced)
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
            for _ in range(training.num_epochs):
                order = torch.randperm(frames, device=cfg.device)
                for chosen in order.chunk(training.num_minibatches):
                    losses = update(rows[chosen])
            if cfg.loss.name == "kl_penalty":
                with torch.no_grad():
                    kl = loss(rows)["kl"].mean()
                loss.beta.copy_(adapt_kl_penalty(loss.beta, kl, cfg.loss.kl_target))
                losses.update({"kl": kl, "beta": loss.beta.clone()})
            for scale in scales:  # not before: the probabilities above are of the old scale
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
