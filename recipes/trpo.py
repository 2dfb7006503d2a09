"""Trust region policy optimization (Schulman et al. 2015, arXiv:1502.05477), alone or coupled.

    python recipes/trpo.py env=Hopper-v5                # one policy
    python recipes/trpo.py env=cartpole_swingup kernel=rbf population.num_particles=16   # coupled
    python recipes/trpo.py resume=runs/trpo/...         # go on where a run stopped

Every setting of conf/trpo.yaml can be given on the command line.
"""

from typing import Literal

from torchrl_stein.runs.settings import (
    Compile,
    Count,
    NonNegative,
    PopulationLoss,
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


class Settings(PopulationSettings):
    """conf/trpo.yaml."""

    recipe: Literal["trpo"]
    kernel: Target
    loss: PopulationLoss
    trpo: NaturalGradient
    compile: Compile


if __name__ == "__main__":  # before torch is imported, which takes seconds
    check_command_line(__file__, Settings, __doc__)

from functools import partial

import hydra
from omegaconf import DictConfig
from tensordict import TensorDict, TensorDictBase

from torchrl_stein import SteinPolicyLoss
from torchrl_stein.objectives import LogLinearSchedule, NaturalGradientStep, TRPOLoss
from torchrl_stein.runs import (
    SeedFolders,
    Session,
    compiled,
    estimate_advantages,
    finish_returns,
    log_best_episode,
    log_returns,
    log_test,
    make_gaussian_actor,
    make_kernel,
    make_linear_critic,
    make_population_collector,
    make_task,
    mean_action_returns,
    training_returns,
)


@hydra.main(version_base="1.3", config_path="conf", config_name="trpo")
def main(values: DictConfig) -> None:
    """Collect, step along natural gradients within a bound; test now and then."""
    cfg = Settings.read(values)
    with Session(cfg) as session:
        train_seed, eval_seed, final_seed = session.seeds
        n = cfg.population.num_particles
        task = partial(make_task, cfg.env, device=cfg.device, options=cfg.env_options)
        env = task((n, cfg.population.envs_per_particle), seed=train_seed)
        actor = make_gaussian_actor(env, n, cfg.population.num_cells)
        critic = make_linear_critic(env, n)
        temperature, last = cfg.loss.temperature, cfg.loss.final_temperature
        if last is not None:
            temperature = LogLinearSchedule(temperature, last, cfg.training.iterations)
        # Advantages are standardised in the loop, for all policies alike.
        base = TRPOLoss(actor, critic, critic_coeff=0.0, normalize_advantage=False)
        kernel = make_kernel(cfg.kernel, actor, seed=cfg.seed)
        loss = SteinPolicyLoss(base, kernel=kernel, temperature=temperature).to(cfg.device)
        optim = NaturalGradientStep(loss, **cfg.trpo.model_dump())

        def update(data: TensorDictBase) -> TensorDict:
            optim.zero_grad()
            losses = loss(data)
            sum(value for name, value in losses.items() if name.startswith("loss_")).backward()
            losses.update(loss.diagnose())
            losses.update({name: value.mean() for name, value in optim.step(data).items()})
            return losses.detach()

        # The loss is not given: torch.compile would unroll every conjugate gradient and every
        # candidate of the line search, which takes minutes.
        update = compiled(update, cfg.compile)
        frames = env.numel() * cfg.training.steps
        total = frames * cfg.training.iterations
        collector = make_population_collector(
            env, actor, frames_per_batch=frames, total_frames=total, compiled=cfg.compile.compile
        )
        test = partial(mean_action_returns, task, collector, actor, max_steps=cfg.eval.max_steps)
        session.track(loss=loss, actor=actor, collector=collector)
        folders = SeedFolders(session, 1)

        for data in session.batches(collector, total=total):
            data.update(estimate_advantages(data, critic, cfg.loss.gamma, cfg.loss.lmbda))
            losses = update(data)
            critic.module.fit(data["observation"], data["elapsed_steps"], data["value_target"])
            loss.step()
            session.log_update(losses, data, scale=data["scale"].mean().item())
            if session.log_due:
                log_returns(folders, "train", training_returns(data))
            if session.evaluation_due:  # from the same starts every time
                log_test(session, folders, test(episodes=cfg.eval.episodes, seed=eval_seed), loss)

        # From other starts than those by which one may have chosen the best.
        returns = test(episodes=cfg.eval.final_episodes, seed=final_seed)
        finish_returns(folders, returns)
        log_best_episode(session, actor, returns, seed=final_seed)


if __name__ == "__main__":
    main()
