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
    WORLDS,
    BirthDeathSettings,
    Compile,
    Count,
    Fraction,
    PopulationLoss,
    PopulationOptim,
    PopulationSettings,
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


class Settings(PopulationSettings):
    """conf/svpg.yaml."""

    recipe: Literal["svpg"]
    seeds: Count
    base: Base
    kernel: Target
    selection: BirthDeathSettings | None
    trust_region: TrustRegion | None
    loss: PopulationLoss
    optim: PopulationOptim
    compile: Compile

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.selection is not None and self.trust_region is not None:
            raise ValueError(
                "selection=none with a trust_region: a replaced particle has no predecessor"
            )
        if self.seeds > 1 and self.env not in WORLDS:
            each = ",".join(str(self.seed + s) for s in range(self.seeds))
            raise ValueError(
                f"seeds=1 with env={self.env}, whose simulators run one after the other; for one "
                f"run after the other: --multirun seed={each}"
            )
        rows = self.population.envs_per_particle * self.training.steps
        if self.compile.cudagraphs and rows % self.base.num_minibatches:
            raise ValueError(
                f"base.num_minibatches that divides the {rows} transitions of a particle: "
                "compile.cudagraphs needs minibatches of one size"
            )
        return self


if __name__ == "__main__":  # before torch is imported, which takes seconds
    check_command_line(__file__, Settings, __doc__)

from collections.abc import Iterator
from functools import partial

import hydra
import torch
from omegaconf import DictConfig
from tensordict import TensorDict, TensorDictBase
from torchrl.modules import ProbabilisticActor, ValueOperator
from torchrl.objectives import A2CLoss, ClipPPOLoss, ReinforceLoss

from torchrl_stein import SteinPolicyLoss
from torchrl_stein.modules import BirthDeath
from torchrl_stein.objectives import LogLinearSchedule, ParameterSpace
from torchrl_stein.runs import (
    SeedFolders,
    Session,
    compiled,
    estimate_advantages,
    finish_returns,
    inherit_returns,
    log_best_episode,
    log_returns,
    log_test,
    make_gaussian_actor,
    make_kernel,
    make_linear_critic,
    make_population_collector,
    make_task,
    make_trust_region,
    mean_action_returns,
    training_returns,
)


def make_loss(cfg: Settings, actor: ProbabilisticActor, critic: ValueOperator) -> SteinPolicyLoss:
    """A policy loss whose gradients the kernel couples, of several seeds each population's own."""
    # Advantages are given, and critics are fitted in closed form.
    if cfg.base.name == "reinforce":
        base = ReinforceLoss(actor, critic)
    elif cfg.base.name == "a2c":
        base = A2CLoss(actor, critic, entropy_bonus=False, critic_coeff=None)
    else:
        clip = 0.2 if cfg.base.clip_epsilon is None else cfg.base.clip_epsilon
        base = ClipPPOLoss(actor, critic, clip_epsilon=clip, entropy_bonus=False, critic_coeff=None)
    temperature, last = cfg.loss.temperature, cfg.loss.final_temperature
    if last is not None:
        temperature = LogLinearSchedule(temperature, last, cfg.training.iterations)
    kernel = make_kernel(cfg.kernel, actor, seed=cfg.seed)
    return SteinPolicyLoss(base, kernel=kernel, temperature=temperature).to(cfg.device)


def minibatches(data: TensorDictBase, base: Base) -> Iterator[TensorDictBase]:
    """Passes over the data ``[..., n, E, T]`` of an iteration, the same rows of every particle."""
    rows = data.flatten(-2, -1) if base.num_minibatches > 1 else data
    for _ in range(base.num_epochs):
        if base.num_minibatches == 1:
            yield data
            continue
        for chosen in torch.randperm(rows.shape[-1], device=rows.device).chunk(
            base.num_minibatches
        ):
            yield rows[..., chosen]


@hydra.main(version_base="1.3", config_path="conf", config_name="svpg")
def main(values: DictConfig) -> None:
    """Collect with all policies, couple their gradients, replace some; test now and then."""
    cfg = Settings.read(values)
    with Session(cfg) as session:
        train_seed, eval_seed, final_seed = session.seeds
        # Several seeds are one more leading dimension of networks, data and losses.
        n = cfg.population.num_particles
        shape = (n,) if cfg.seeds == 1 else (cfg.seeds, n)
        task = partial(make_task, cfg.env, device=cfg.device, options=cfg.env_options)
        env = task((*shape, cfg.population.envs_per_particle), seed=train_seed)
        actor = make_gaussian_actor(env, shape, cfg.population.num_cells)
        critic = make_linear_critic(env, shape)
        loss = make_loss(cfg, actor, critic)
        # A loss is a mean over the seeds. Adam's step does not depend on a factor of the gradient
        # if eps has it too: every seed takes the step that it would take alone.
        optim = torch.optim.Adam(
            loss.parameters(), lr=cfg.optim.lr, eps=1e-8 / cfg.seeds, fused=True
        )
        selection = None
        if cfg.selection is not None:
            moves = cfg.selection.model_dump(exclude={"interval"})  # their scale and jitter
            selection = BirthDeath(actor[0].module, loss.kernel, **moves)
        # The paper's weight multiplies the KL, and this loss is alpha KL, of the first alpha.
        alpha, space = cfg.loss.temperature, ParameterSpace()
        region, previous = make_trust_region(cfg.trust_region, actor, space, scale=alpha)

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

        # The first update of an iteration also makes the present policies the "previous" ones.
        first_update, next_update = (
            compiled(partial(update, follow=follow), cfg.compile, optim, losses=[loss, region])
            for follow in (True, False)
        )
        frames = env.numel() * cfg.training.steps
        total = frames * cfg.training.iterations
        collector = make_population_collector(
            env, actor, frames_per_batch=frames, total_frames=total, compiled=cfg.compile.compile
        )
        test = partial(mean_action_returns, task, collector, actor, max_steps=cfg.eval.max_steps)
        session.track(
            loss=loss, actor=actor, optim=optim, selection=selection, region=region,
            previous=previous, collector=collector,
        )  # fmt: skip
        folders = SeedFolders(session, cfg.seeds)

        for data in session.batches(collector, total=total):
            data.update(
                estimate_advantages(data, critic, cfg.loss.gamma, cfg.loss.lmbda, len(shape))
            )
            for number, batch in enumerate(minibatches(data, cfg.base)):
                losses = (next_update if number else first_update)(batch)
            if cfg.base.name != "reinforce":  # its baseline stays zero
                critic.module.fit(data["observation"], data["elapsed_steps"], data["value_target"])
            iteration = loss.step()  # advances the temperature too
            returns = training_returns(data)
            if selection is not None:
                selection.observe(returns)
                if iteration % cfg.selection.interval == 0:
                    inherit_returns(session, selection.step(optim, [critic]))
            session.log_update(losses, data, scale=data["scale"].mean().item())
            if session.log_due:
                log_returns(folders, "train", returns)
            if session.evaluation_due:  # from the same starts every time
                log_test(session, folders, test(episodes=cfg.eval.episodes, seed=eval_seed), loss)

        # From other starts than those by which one may have chosen the best.
        returns = test(episodes=cfg.eval.final_episodes, seed=final_seed)
        finish_returns(folders, returns)
        log_best_episode(session, actor, returns, seed=final_seed)


if __name__ == "__main__":
    main()
