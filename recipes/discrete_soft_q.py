"""Soft Q-learning with discrete actions (Haarnoja et al. 2017, arXiv:1702.08165).

The soft value is a sum over all actions and the policy softmax(Q / alpha): nothing is sampled but
the actions that are taken, and no policy is trained.

    python recipes/discrete_soft_q.py                           # CartPole-v1
    python recipes/discrete_soft_q.py task=discrete/grid_world  # and the distance to its optimum
    python recipes/discrete_soft_q.py loss.fixed_alpha=false loss.target_entropy=0.3
    python recipes/discrete_soft_q.py loss.temperature=0.001    # nearly DQN
    python recipes/discrete_soft_q.py seeds=5
"""

from typing import Literal, Self

from pydantic import model_validator

from torchrl_stein.runs.settings import (
    Count,
    CriticOptim,
    DiscreteEnvironment,
    Fraction,
    OffPolicySettings,
    Positive,
    Section,
    check_command_line,
)


class Loss(Section):
    """Arguments of DiscreteSoftQLoss and its actor, and the discount."""

    temperature: Positive
    fixed_alpha: bool
    target_entropy: Positive
    gamma: Fraction
    num_qvalue_nets: Count
    ensemble_reduction: Literal["min", "mean"]


class Optim(CriticOptim):
    """Rates of Adam, and how targets follow."""

    lr_alpha: Positive


class Settings(OffPolicySettings):
    """conf/discrete_soft_q.yaml."""

    recipe: Literal["discrete_soft_q"]
    env: DiscreteEnvironment
    loss: Loss
    optim: Optim

    @model_validator(mode="after")
    def _fits(self) -> Self:
        # The temperature of the grid world's optimum is in units of the reward.
        if self.training.reward_scale == "auto" and self.env.name == "grid_world":
            raise ValueError(
                "training.reward_scale to be a number with env.name=grid_world; it is auto"
            )
        return self


if __name__ == "__main__":  # before torch is imported, which takes seconds
    check_command_line(__file__, Settings, __doc__)

import hydra
import torch
from omegaconf import DictConfig
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torch.distributions import Categorical, kl_divergence
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import EnvBase
from torchrl.objectives import HardUpdate, SoftUpdate

from torchrl_stein.envs import GridWorldEnv
from torchrl_stein.functional import soft_value_iteration
from torchrl_stein.modules import BoltzmannActor
from torchrl_stein.objectives import DiscreteSoftQLoss, EntropyTarget
from torchrl_stein.runs import (
    SeedFolders,
    Session,
    base_env,
    compiled,
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


def make_loss(cfg: Settings, env: EnvBase) -> DiscreteSoftQLoss:
    """Q-functions, the policy that they are, and the loss."""
    observation_dim = env.observation_spec["observation"].shape[-1]
    spec, cells = env.action_spec_unbatched, cfg.network.num_cells
    qvalues = [
        TensorDictModule(
            make_mlp(observation_dim, spec.shape[-1], cells, cfg.device, seeds=cfg.seeds),
            ["observation"],
            ["action_value"],
        )
        for _ in range(cfg.loss.num_qvalue_nets)
    ]
    reduction = torch.amin if cfg.loss.ensemble_reduction == "min" else torch.mean
    actor = BoltzmannActor(qvalues, action_spec=spec, ensemble_reduction=reduction)
    # The loss sees scaled rewards; (alpha, r) and (c alpha, c r) are the same problem.
    first = cfg.loss.temperature * cfg.training.temperature_scale
    target = EntropyTarget(cfg.loss.target_entropy, alpha_init=one_per_seed(first, cfg.seeds))
    loss = DiscreteSoftQLoss(actor, temperature=first if cfg.loss.fixed_alpha else target)
    loss.to(cfg.device).make_value_estimator(gamma=cfg.loss.gamma)
    return loss


@torch.no_grad()
def distance_to_optimum(loss: DiscreteSoftQLoss, cfg: Settings) -> list[dict[str, float]]:
    """In a grid world, of each seed: KL(policy || soft optimum), the mean over states."""
    env = base_env(make_configured_task(cfg.env, 1, seed=0))
    if not isinstance(env, GridWorldEnv):
        return [{} for _ in range(cfg.seeds)]
    states, rewards, following, terminated = env.world.transitions()
    observed = env.world.observe(states).float().expand(*cfg.leading, -1, -1).to(cfg.device)
    actor = loss.actor_network
    policies = actor.get_dist(TensorDict({"observation": observed}, observed.shape[:-1]))
    probs = policies.probs.double().cpu().reshape(cfg.seeds, *rewards.shape)
    alphas = actor.temperature.double().cpu().reshape(-1) / cfg.training.temperature_scale
    found = []
    for learnt, alpha in zip(probs, alphas.expand(cfg.seeds).tolist(), strict=True):
        q = soft_value_iteration(rewards, following, cfg.loss.gamma * ~terminated, alpha)
        distance = kl_divergence(Categorical(probs=learnt), Categorical(logits=q / alpha))
        found.append({"kl_to_optimum": distance.mean().item()})
    return found


@hydra.main(version_base="1.3", config_path="conf", config_name="discrete_soft_q")
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
            actor,  # explores by itself
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

        def measure(episodes: int) -> list[dict[str, float]]:
            earned, _ = evaluate(actor, cfg, episodes=episodes, seed=eval_seed)
            return [a | b for a, b in zip(earned, distance_to_optimum(loss, cfg), strict=True)]

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
                folders.log_evaluation(measure(cfg.eval.episodes))

        folders.finish(measure(cfg.eval.final_episodes))
        if cfg.seeds == 1:
            steps, device = cfg.eval.video_steps, cfg.device
            log_episode(session, actor, cfg.env, max_steps=steps, seed=eval_seed, device=device)


if __name__ == "__main__":
    main()
