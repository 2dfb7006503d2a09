"""Compose policies: sample from exp(sum of their Q-functions / alpha), without new data.

    python recipes/soft_q.py task=multigoal_x run_dir=runs/x     # get to x = 5 or x = -5
    python recipes/soft_q.py task=multigoal_y run_dir=runs/y     # get to y = 5 or y = -5
    python recipes/compose.py runs='[runs/x,runs/y]'             # all four corners
    python recipes/soft_q.py task=multigoal_xy run_dir=runs/xy   # the summed reward, learnt
    python recipes/compose.py runs='[runs/x,runs/y]' compare='[runs/xy]'

A new sampler is trained by amortized SVGD on the sum, at the states of the runs' replay buffers
(Haarnoja et al. 2018, arXiv:1803.06773, section 4). All policies are then played in the world
whose reward is the sum of those of the runs. The result is a run like any other. Every setting of
conf/compose.yaml can be given on the command line.
"""

from typing import Annotated, Literal

from pydantic import Field

from torchrl_stein.runs.settings import (
    Count,
    Fraction,
    Positive,
    RecipeSettings,
    Section,
    check_command_line,
)

Path = Annotated[str, Field(min_length=1)]


class Training(Section):
    """Of the sampler."""

    updates: Count
    batch_size: Count
    log_interval: Count
    eval_interval: Count
    checkpoint_interval: Count


class Optim(Section):
    """Rate of Adam."""

    lr: Positive
    final_lr_fraction: Fraction


class Settings(RecipeSettings):
    """conf/compose.yaml."""

    recipe: Literal["compose"]
    resume: None = None
    runs: Annotated[list[Path], Field(min_length=1)]
    compare: list[Path]
    training: Training
    optim: Optim

    @property
    def task(self) -> str:
        """A label for the directory of the run."""
        return "multigoal"


if __name__ == "__main__":  # before torch is imported, which takes seconds
    check_command_line(__file__, Settings, __doc__)

import hydra
import torch
from omegaconf import DictConfig
from tensordict import TensorDict

from torchrl_stein import AmortizedSVGDActor, SoftQLoss
from torchrl_stein.modules import SumQ
from torchrl_stein.runs import (
    Session,
    build,
    draw_run,
    evaluate,
    load_loss,
    make_configured_task,
    make_mlp,
    read_component,
    sum_of_worlds,
)

SHARED = ("loss.temperature", "loss.gamma", "training.reward_scale")


def load_parts(cfg: Settings, session: Session) -> tuple[list[SoftQLoss], list]:
    """The losses of the runs to compose, and their settings."""
    parts, settings = [], []
    for run in cfg.runs:
        loss, of_run = load_loss(run, cfg.device)
        if not isinstance(loss, SoftQLoss) or loss.num_qvalue_nets > 1:
            session.refuse(f"{run} must be a run of soft Q-learning with one Q-network")
        if of_run.env.name != "multigoal":
            session.refuse(f"{run} must be of the multigoal world, got {of_run.env.name}")
        for name in SHARED:
            section, key = name.split(".")
            first, here = (
                getattr(getattr(s, section), key) for s in ([*settings, of_run][0], of_run)
            )
            if first != here:
                session.refuse(f"every run must have the same {name}, got {first} and {here}")
        parts.append(loss)
        settings.append(of_run)
    return parts, settings


def replayed_states(cfg: Settings, session: Session) -> torch.Tensor:
    """The states that the runs have been in: all observations of their replay buffers."""
    states = []
    for run in cfg.runs:
        buffer = read_component(run, "buffer")
        if "transitions" not in buffer:
            session.refuse(f"the replay buffer of {run} is empty")
        states.append(buffer["transitions"]["observation"])
    return torch.cat(states).to(cfg.device)


def train(cfg: Settings, session: Session) -> None:
    """Train a sampler on the fixed sum of Q-functions, then play all policies."""
    train_seed, eval_seed, _ = session.seeds
    parts, settings = load_parts(cfg, session)
    first, states = settings[0], replayed_states(cfg, session)
    world = first.env.model_copy(
        update={"options": sum_of_worlds([part.env.options for part in settings])}
    )
    target = first.model_copy(update={"env": world, "device": cfg.device})
    env = make_configured_task(world, 1, device=cfg.device, seed=train_seed)
    spec = env.action_spec_unbatched
    sizes = states.shape[-1] + spec.shape[-1], spec.shape[-1]
    actor = AmortizedSVGDActor(
        make_mlp(*sizes, first.network.num_cells, cfg.device), action_spec=spec
    )
    loss = SoftQLoss(
        actor,
        SumQ([part.qvalue_network for part in parts]).requires_grad_(False),
        temperature=first.loss.temperature * first.training.reward_scale,
        kernel=build(first.loss.kernel),
        num_particles=first.loss.num_particles,
        squash=first.loss.squash,
        delay_qvalue=False,
    ).to(cfg.device)
    optim = torch.optim.Adam(loss.actor_network_params.parameters(), lr=cfg.optim.lr, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(
        optim, 1.0, cfg.optim.final_lr_fraction, total_iters=cfg.training.updates
    )
    others = {run: load_loss(run, cfg.device)[0] for run in cfg.compare}
    session.track(loss=loss, optim=optim, schedule=schedule)
    session.print(f"Sampling from the sum of {len(parts)} Q-functions at {len(states)} states")

    batch_size = cfg.training.batch_size
    draws = iter(lambda: torch.randint(len(states), (batch_size,), device=cfg.device), None)
    for index in session.batches(draws, total=cfg.training.updates, size=1):
        losses = loss.actor_loss(TensorDict({"observation": states[index]}, [batch_size]))
        losses["loss_actor"].backward()
        optim.step()
        optim.zero_grad()
        schedule.step()
        session.log_update(losses.detach())

    policies = {"composed": loss, **dict(zip(cfg.runs, parts, strict=True)), **others}
    results = {}
    for name, policy in policies.items():
        results[name], played = evaluate(
            policy.actor_network, target, episodes=target.eval.final_episodes, seed=eval_seed
        )
        if name == "composed":
            draw_run(session, target, played, loss)
    width = max(map(len, results))
    print(" " * width, *(f"{name:>13}" for name in results["composed"]))
    for name, metrics in results.items():
        print(f"{name:<{width}}", *(f"{value:13.3f}" for value in metrics.values()))
    session.write("comparison.json", results)
    session.finish(results["composed"], shown=[])


@hydra.main(version_base="1.3", config_path="conf", config_name="compose")
def main(cfg: DictConfig) -> None:
    """Compose, train the sampler, compare."""
    settings = Settings.read(cfg)
    with Session(settings) as session:
        train(settings, session)


if __name__ == "__main__":
    main()
