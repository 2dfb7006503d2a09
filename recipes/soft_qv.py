"""DP-WGF-V (Zhang et al. 2018, arXiv:1808.03030, algorithm 3) on the multi-goal world.

    python recipes/soft_qv.py                         # a mixture of 16 squashed Gaussians
    python recipes/soft_qv.py actor.num_particles=1   # one squashed Gaussian
    python recipes/soft_qv.py trust_region.weight=0   # without the trust region

Soft Q-learning with a value network, a policy that has a density, and a Wasserstein trust region
over actions. Every setting of conf/soft_qv.yaml and conf/off_policy.yaml can be given on the
command line.
"""

from typing import Literal

from torchrl_stein.runs.settings import (
    ActionTrustRegion,
    Count,
    Exploration,
    Fraction,
    LearntAlphaOptim,
    OffPolicySettings,
    Positive,
    Section,
    Target,
    check_command_line,
)


class Actor(Section):
    """The mixture that acts."""

    num_particles: Count


class Loss(Section):
    """Arguments of SoftQVLoss, and the discount."""

    temperature: Positive
    fixed_alpha: bool
    target_entropy: float | Literal["auto"]
    gamma: Fraction
    kernel: Target
    num_action_samples: Count
    num_value_samples: Count
    value_target: Literal["soft", "boltzmann", "mellowmax", "expected"]
    squash: Literal["unsquashed", "reference", "none"]
    num_qvalue_nets: Count


class Settings(OffPolicySettings):
    """conf/soft_qv.yaml."""

    recipe: Literal["soft_qv"]
    actor: Actor
    loss: Loss
    optim: LearntAlphaOptim
    trust_region: ActionTrustRegion
    exploration: Exploration


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

from torchrl_stein import ParticleModule
from torchrl_stein.functional import (
    boltzmann_value,
    entropy_regularized_value,
    expected_value,
    mellowmax_value,
)
from torchrl_stein.modules import TanhGaussianMixtureActor
from torchrl_stein.objectives import (
    ActionSpace,
    BoxSquash,
    EntropyTarget,
    SoftQVLoss,
    TanhSquash,
)
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
    make_explorer,
    make_mlp,
    make_reward_scaling,
    make_trust_region,
    one_per_seed,
    rows_of_seeds,
    seeds_of_rows,
)

# What the words of conf/soft_qv.yaml stand for.
VALUE_TARGETS = {
    "soft": entropy_regularized_value,
    "boltzmann": boltzmann_value,
    "mellowmax": mellowmax_value,
    "expected": expected_value,
}
SQUASHES = {
    "unsquashed": TanhSquash(),
    "reference": BoxSquash(barrier=True),
    "none": BoxSquash(barrier=False),
}


def make_loss(cfg: Settings, env: EnvBase) -> SoftQVLoss:
    """Mixture policy, Q- and V-function, and the loss over all three."""
    observation_dim = env.observation_spec["observation"].shape[-1]
    spec = env.action_spec_unbatched
    action_dim = spec.shape[-1]
    mlp = partial(make_mlp, num_cells=cfg.network.num_cells, device=cfg.device)
    critic = partial(mlp, seeds=cfg.seeds)

    def make_gaussian() -> nn.Module:
        return nn.Sequential(mlp(observation_dim, 2 * action_dim), NormalParamExtractor())

    # The loss sees scaled rewards; (alpha, r) and (c alpha, c r) are the same problem.
    alpha = cfg.loss.temperature * cfg.training.temperature_scale
    particles = ParticleModule(make_gaussian, (*cfg.leading, cfg.actor.num_particles))
    loss = SoftQVLoss(
        TanhGaussianMixtureActor(particles, action_spec=spec),
        [
            ValueOperator(
                critic(observation_dim + action_dim, 1), in_keys=["observation", "action"]
            )
            for _ in range(cfg.loss.num_qvalue_nets)
        ],
        ValueOperator(critic(observation_dim, 1)),
        temperature=(
            alpha
            if cfg.loss.fixed_alpha
            else EntropyTarget(cfg.loss.target_entropy, alpha_init=one_per_seed(alpha, cfg.seeds))
        ),
        kernel=build(cfg.loss.kernel),
        num_action_samples=cfg.loss.num_action_samples,
        num_value_samples=cfg.loss.num_value_samples,
        value_target=VALUE_TARGETS[cfg.loss.value_target],
        squash=SQUASHES[cfg.loss.squash],
    ).to(cfg.device)
    return loss.make_value_estimator(gamma=cfg.loss.gamma)


@hydra.main(version_base="1.3", config_path="conf", config_name="soft_qv")
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
        critics = [loss.qvalue_network_params, loss.value_network_params]
        optim = torch.optim.Adam(
            [
                {
                    "params": [p for net in critics for p in net.parameters()],
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
        space = ActionSpace(cfg.trust_region.num_action_samples)
        region, previous = make_trust_region(cfg.trust_region, actor, space)

        def update(batch: TensorDictBase) -> TensorDict:
            losses = loss(batch)
            if region is not None:
                losses.update(region(batch))
            sum(value for name, value in losses.items() if name.startswith("loss_")).backward()
            if previous is not None:
                previous.step()  # before the optimizer: afterwards both policies would be the same
            optim.step()
            optim.zero_grad()
            return losses.detach()

        update = compiled(update, cfg.compile, optim, losses=[loss, region])
        buffer = TensorDictReplayBuffer(
            storage=LazyTensorStorage(training.buffer_size, device=cfg.device),
            batch_size=training.batch_size,
            transform=make_reward_scaling(training.reward_scale, env, cfg.loss.gamma),
        )
        collector = Collector(
            env,
            make_explorer(actor, env.action_spec, **cfg.exploration.model_dump()),
            frames_per_batch=env.numel(),
            total_frames=cfg.seeds * training.total_frames,
            init_random_frames=cfg.seeds * training.warmup_frames,
            auto_register_policy_transforms=False,
            track_traj_ids=False,
        )
        session.track(
            loss=loss, optim=optim, schedule=schedule, target=target, region=region,
            previous=previous, buffer=buffer, collector=collector,
        )  # fmt: skip

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
                metrics, _ = evaluate(
                    actor, cfg, episodes=cfg.eval.episodes, seed=eval_seed, qvalue=loss.qvalue
                )
                folders.log_evaluation(metrics)
                session.log_histogram("train/actions", batch["action"])

        metrics, played = evaluate(
            actor, cfg, episodes=cfg.eval.final_episodes, seed=eval_seed, qvalue=loss.qvalue
        )
        folders.finish(metrics)
        if cfg.seeds == 1:
            draw_run(session, cfg, played, loss)
            steps, device = cfg.eval.video_steps, cfg.device
            log_episode(session, actor, cfg.env, max_steps=steps, seed=eval_seed, device=device)


if __name__ == "__main__":
    main()
