"""Trust region policy optimization (Schulman et al. 2015, arXiv:1502.05477), alone or coupled.

    python recipes/trpo.py env=Hopper-v5                # one policy
    python recipes/trpo.py env=cartpole_swingup kernel=rbf population.num_particles=16   # coupled
    python recipes/trpo.py resume=runs/trpo/...         # go on where a run stopped

Every setting of conf/trpo.yaml can be given on the command line.
"""

from typing import Literal

from torchrl_stein.runs.settings import (
    Count,
    Fraction,
    NonNegative,
    PopulationSettings,
    Positive,
    Section,
    Target,
    check_command_line,
)


class NaturalGradient(Section):
    """Arguments of NaturalGradientStep."""

    max_kl: Positive
    damping: NonNegative
    iterations: Count
    fisher_stride: Count


class Loss(Section):
    """Arguments of SteinPolicyLoss and of the advantages."""

    temperature: NonNegative
    final_temperature: Positive | None
    gamma: Fraction
    lmbda: Fraction


class Settings(PopulationSettings):
    """conf/trpo.yaml."""

    recipe: Literal["trpo"]
    kernel: Target
    loss: Loss
    trpo: NaturalGradient


if __name__ == "__main__":  # before torch is imported, which takes seconds
    check_command_line(__file__, Settings, __doc__)

import math
from functools import partial

import hydra
from omegaconf import DictConfig
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.collectors import Collector
from torchrl.envs.utils import ExplorationType
from torchrl.modules import ProbabilisticActor

from torchrl_stein import SteinPolicyLoss
from torchrl_stein.envs import BatchedEnv
from torchrl_stein.kernels import (
    BehaviourKernel,
    Kernel,
    LayerwiseKernel,
)
from torchrl_stein.modules import EnsemblePolicy
from torchrl_stein.objectives import LogLinearSchedule, NaturalGradientStep, TRPOLoss
from torchrl_stein.runs import (
    SeedFolders,
    Session,
    WorldCollector,
    build,
    compiled,
    estimate_advantages,
    isolated_draws,
    kernel_image,
    kernel_matrix,
    log_episode,
    make_gaussian_actor,
    make_linear_critic,
    make_task,
    play_episodes,
    training_returns,
)


def make_kernel(cfg: Settings, actor: ProbabilisticActor) -> Kernel:
    """How particles interact."""
    population = actor[0].module
    known = {
        BehaviourKernel: {"actor": actor},
        LayerwiseKernel: {"layer_slices": population.layer_slices},
    }
    return build(cfg.kernel, known)


def train(cfg: Settings, session: Session) -> None:
    """Collect, step along natural gradients within a bound; test now and then."""
    train_seed, eval_seed, final_seed = session.seeds
    num_policies = cfg.population.num_particles
    task = partial(make_task, cfg.env, device=cfg.device, options=cfg.env_options)
    env = task((num_policies, cfg.population.envs_per_particle), seed=train_seed)
    actor = make_gaussian_actor(env, num_policies, cfg.population.num_cells)
    critic = make_linear_critic(env, num_policies)
    temperature = cfg.loss.temperature
    if cfg.loss.final_temperature is not None:
        temperature = LogLinearSchedule(
            temperature, cfg.loss.final_temperature, cfg.training.iterations
        )
    # Advantages are standardised here, for all policies alike.
    base = TRPOLoss(actor, critic, critic_coeff=0.0, normalize_advantage=False)
    loss = SteinPolicyLoss(base, kernel=make_kernel(cfg, actor), temperature=temperature)
    loss = loss.to(cfg.device)
    optim = NaturalGradientStep(loss, **cfg.trpo.model_dump())

    def update(data: TensorDictBase) -> TensorDict:
        optim.zero_grad()
        losses = loss(data)
        sum(value for name, value in losses.items() if name.startswith("loss_")).backward()
        losses.update(loss.diagnose())
        losses.update({name: value.mean() for name, value in optim.step(data).items()})
        return losses.detach()

    # Captured, but not compiled: torch.compile would unroll every conjugate gradient and every
    # candidate of the line search, which takes minutes.
    update = compiled(update, cfg.compile.model_copy(update={"compile": False}))
    frames = env.batch_size.numel() * cfg.training.steps
    total = frames * cfg.training.iterations
    if isinstance(env, BatchedEnv):
        collector = WorldCollector(
            env, actor, frames_per_batch=frames, total_frames=total, compiled=cfg.compile.compile
        )
    else:
        collector = Collector(
            env,
            actor,
            frames_per_batch=frames,
            total_frames=total,
            auto_register_policy_transforms=False,
        )

    def test(episodes: int, seed: int) -> Tensor:
        """Mean return of every policy, acting with its mean action."""
        env = task((num_policies, episodes), seed=seed)
        with isolated_draws(seed):
            if isinstance(collector, WorldCollector):
                starts = env.draw_starts(env.batch_size)
                returns = collector.mean_action_returns(starts, cfg.eval.max_steps)
            else:
                how = ExplorationType.DETERMINISTIC
                returns = play_episodes(env, actor, cfg.eval.max_steps, how).returns
        env.close()
        return returns.mean(1)

    session.track(
        loss=loss,
        actor=actor,
        collector=collector,
    )
    folders = SeedFolders(session, 1)

    for data in session.batches(collector, total=total):
        data.update(estimate_advantages(data, critic, cfg.loss.gamma, cfg.loss.lmbda))
        losses = update(data)
        critic.module.fit(data["observation"], data["elapsed_steps"], data["value_target"])
        loss.step()
        session.log_update(losses, data, scale=data["scale"].mean().item())
        if session.log_due:
            folders.log_returns("train", training_returns(data))
        if session.evaluation_due:
            tested = test(cfg.eval.episodes, eval_seed)  # the same starts every time
            session.notes["returns"] = tested.tolist()
            summary = folders.log_returns("test", tested)
            session.evaluated(summary, summary["mean"])
            if tested.isfinite().any():
                session.log_histogram("test/returns", tested[tested.isfinite()])
            session.log_image("test/kernel", kernel_image(kernel_matrix(loss)))

    # Other starts than those by which one may have chosen the best.
    tested = test(cfg.eval.final_episodes, final_seed)
    folders.finish(tested)
    best = int(tested.nan_to_num(-math.inf).argmax())
    log_episode(
        session,
        EnsemblePolicy(actor, "best", best=best),
        cfg.environment,
        max_steps=cfg.eval.video_steps,
        seed=final_seed,
        device=cfg.device,
    )


@hydra.main(version_base="1.3", config_path="conf", config_name="trpo")
def main(cfg: DictConfig) -> None:
    """Train and test."""
    settings = Settings.read(cfg)
    with Session(settings) as session:
        train(settings, session)


if __name__ == "__main__":
    main()
