"""Stein variational policy gradient (Liu et al. 2017, arXiv:1704.02399) and its baselines.

    python recipes/svpg.py                                    # A2C with birth and death, swing-up
    python recipes/svpg.py selection=none base=reinforce      # the paper's algorithm
    python recipes/svpg.py selection=none kernel=none seed=3  # independent policies
    python recipes/svpg.py selection=none kernel=drift        # a placebo for the kernel's repulsion
    python recipes/svpg.py --config-name joint                # one agent with the data of all
    python recipes/svpg.py --config-name ip_wgf base=reinforce  # a trust region: IP-WGF
    python recipes/svpg.py env=InvertedPendulum-v5 base=ppo
    python recipes/svpg.py --multirun kernel=rbf,none seed=0,1  # one by one
    python recipes/svpg.py seeds=5                            # seeds 0 to 4 as one batch
    python recipes/svpg.py resume=runs/svpg/...               # go on where a run stopped

Every setting of conf/svpg.yaml can be given on the command line.
"""

from typing import Literal, Self

from pydantic import model_validator

from torchrl_stein.runs.settings import (
    BirthDeathSettings,
    Count,
    Fraction,
    NonNegative,
    PopulationOptim,
    PopulationSettings,
    Positive,
    Section,
    Target,
    TrustRegion,
    check_command_line,
)


class Base(Section):
    """The loss that the kernel couples, and how often it sees the data of an iteration."""

    name: Literal["reinforce", "a2c", "ppo"]
    num_epochs: Count
    num_minibatches: Count
    clip_epsilon: Fraction | None = None


class Loss(Section):
    """Arguments of SteinPolicyLoss and of the advantages."""

    temperature: NonNegative
    final_temperature: Positive | None
    gamma: Fraction
    lmbda: Fraction


class Settings(PopulationSettings):
    """conf/svpg.yaml."""

    recipe: Literal["svpg"]
    seeds: Count
    base: Base
    kernel: Target
    selection: BirthDeathSettings | None
    trust_region: TrustRegion | None
    loss: Loss
    optim: PopulationOptim

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.selection is not None and self.trust_region is not None:
            raise ValueError(
                "selection=none with a trust_region: a replaced particle has no predecessor"
            )
        return self


if __name__ == "__main__":  # before torch is imported, which takes seconds
    check_command_line(__file__, Settings, __doc__)

import math
from collections.abc import Iterator
from functools import partial

import hydra
import torch
from omegaconf import DictConfig
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.collectors import Collector
from torchrl.envs.utils import ExplorationType
from torchrl.modules import ProbabilisticActor, ValueOperator
from torchrl.objectives import (
    A2CLoss,
    ClipPPOLoss,
    HardUpdate,
    LossModule,
    ReinforceLoss,
    SoftUpdate,
)

from torchrl_stein import SteinPolicyLoss, WassersteinTrustRegionLoss
from torchrl_stein.envs import BatchedEnv
from torchrl_stein.kernels import (
    BehaviourKernel,
    DriftControl,
    GroupedKernel,
    Kernel,
    LayerwiseKernel,
    SharedDriftControl,
)
from torchrl_stein.modules import BirthDeath, EnsemblePolicy
from torchrl_stein.objectives import LogLinearSchedule
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
    """How particles interact; of several seeds each population by itself."""
    population = actor[0].module
    drifting = {
        "num_particles": population.num_particles,
        "dim": population.kernel_dim,
        "seed": cfg.seed,
    }
    known = {
        BehaviourKernel: {"actor": actor},
        LayerwiseKernel: {"layer_slices": population.layer_slices},
        DriftControl: drifting,
        SharedDriftControl: drifting,
    }
    kernel = build(cfg.kernel, known)
    return kernel if cfg.seeds == 1 else GroupedKernel(kernel, cfg.seeds)


def make_base(cfg: Settings, actor: ProbabilisticActor, critic: ValueOperator) -> LossModule:
    """A policy loss; advantages are given, and critics are fitted in closed form."""
    if cfg.base.name == "reinforce":
        return ReinforceLoss(actor, critic)
    if cfg.base.name == "a2c":
        return A2CLoss(actor, critic, entropy_bonus=False, critic_coeff=None)
    clip = 0.2 if cfg.base.clip_epsilon is None else cfg.base.clip_epsilon
    return ClipPPOLoss(actor, critic, clip_epsilon=clip, entropy_bonus=False, critic_coeff=None)


def minibatches(data: TensorDictBase, base: Base) -> Iterator[TensorDictBase]:
    """Passes over the data of an iteration, the same rows of every particle."""
    rows = data.flatten(1, data.batch_dims - 1) if base.num_minibatches > 1 else data
    for _ in range(base.num_epochs):
        if base.num_minibatches == 1:
            yield data
            continue
        for chosen in torch.randperm(rows.shape[1], device=rows.device).chunk(base.num_minibatches):
            yield rows[:, chosen]


def train(cfg: Settings, session: Session) -> None:
    """Collect with all policies, couple their gradients, replace some; test now and then."""
    train_seed, eval_seed, final_seed = session.seeds
    num_policies = cfg.seeds * cfg.population.num_particles
    task = partial(make_task, cfg.env, device=cfg.device, options=cfg.env_options)
    env = task((num_policies, cfg.population.envs_per_particle), seed=train_seed)
    if cfg.seeds > 1 and not isinstance(env, BatchedEnv):
        each = ",".join(str(cfg.seed + s) for s in range(cfg.seeds))
        session.refuse(
            f"seeds must be 1 for {cfg.env}, whose simulators run one after the other; for one run "
            f"after the other: --multirun seed={each}"
        )
    actor = make_gaussian_actor(env, num_policies, cfg.population.num_cells)
    critic = make_linear_critic(env, num_policies)
    temperature = cfg.loss.temperature
    if cfg.loss.final_temperature is not None:
        temperature = LogLinearSchedule(
            temperature, cfg.loss.final_temperature, cfg.training.iterations
        )
    base = make_base(cfg, actor, critic)
    loss = SteinPolicyLoss(base, kernel=make_kernel(cfg, actor), temperature=temperature)
    loss = loss.to(cfg.device)
    # Of several seeds each has its share of the gradient, and with the same share of eps its own
    # step: Adam's does not depend on a factor in both.
    optim = torch.optim.Adam(loss.parameters(), lr=cfg.optim.lr, eps=1e-8 / cfg.seeds, fused=True)
    selection = region = previous = None
    if cfg.selection is not None:
        selection = BirthDeath(
            actor[0].module,
            loss.kernel,
            temperature=cfg.selection.temperature,
            jitter=cfg.selection.jitter,
            num_groups=cfg.seeds,
        )
    if cfg.trust_region is not None:
        region = WassersteinTrustRegionLoss(
            actor,
            # SteinPolicyLoss is alpha times the KL of which the paper's weight is the multiple.
            weight=cfg.trust_region.weight * cfg.loss.temperature,
            cost=build(cfg.trust_region.cost),
            space="parameter",
            num_groups=cfg.seeds,
        )
        tau = cfg.trust_region.tau
        previous = HardUpdate(region, value_network_update_interval=0)  # at every step
        previous = previous if tau is None else SoftUpdate(region, tau=tau)

    def update(batch: TensorDictBase, follow: bool) -> TensorDict:
        optim.zero_grad()
        losses = loss(batch)
        sum(value for name, value in losses.items() if name.startswith("loss_")).backward()
        losses.update(loss.diagnose())  # wants this gradient alone
        if region is not None:
            losses.update(region(batch))
            losses["loss_trust_region"].backward()
            if follow:
                previous.step()  # before the optimizer: afterwards both would be the same
        optim.step()
        return losses.detach()

    # Of a trust region the policies before an iteration's first step become the previous ones.
    first, later = (compiled(partial(update, follow=f), cfg.compile, optim) for f in (True, False))
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
        loss=loss, actor=actor, optim=optim, selection=selection, region=region,
        previous=previous, collector=collector,
    )  # fmt: skip
    folders = SeedFolders(session, cfg.seeds)

    for data in session.batches(collector, total=total):
        data.update(estimate_advantages(data, critic, cfg.loss.gamma, cfg.loss.lmbda))
        for number, batch in enumerate(minibatches(data, cfg.base)):
            losses = (later if number else first)(batch)
        if cfg.base.name != "reinforce":  # whose baseline stays zero
            critic.module.fit(data["observation"], data["elapsed_steps"], data["value_target"])
        iteration = loss.step()
        returns = training_returns(data)
        if selection is not None:
            selection.observe(returns)
            if iteration % cfg.selection.interval == 0:
                parents = selection.step(optim, [critic]).tolist()
                # A copy has the return of its parent until the next test.
                known = session.notes.get("returns", [])
                session.notes["returns"] = [known[parent] for parent in parents if known]
        session.log_update(losses, data, scale=data["scale"].mean().item())
        if session.log_due:
            folders.log_returns("train", returns)
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


@hydra.main(version_base="1.3", config_path="conf", config_name="svpg")
def main(cfg: DictConfig) -> None:
    """Train and test."""
    settings = Settings.read(cfg)
    with Session(settings) as session:
        train(settings, session)


if __name__ == "__main__":
    main()
