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
    Cells,
    Count,
    Environment,
    Fraction,
    OneSeed,
    Positive,
    RecipeSettings,
    Section,
    Target,
    TaskEvaluation,
    Words,
    check_command_line,
)


class Training(Section):
    """Of the sampler."""

    updates: Count
    batch_size: Count
    log_interval: Count
    checkpoint_interval: Count


class Optim(Section):
    """Rate of Adam."""

    lr: Positive
    final_lr_fraction: Fraction


class Sampler(Section):
    """Arguments of SoftQLoss, and hidden layers of its networks."""

    num_cells: Cells
    temperature: Positive  # for the scaled rewards of the runs
    kernel: Target
    num_action_samples: Count
    squash: Literal["unsquashed", "reference", "none"]


class Settings(RecipeSettings):
    """conf/compose.yaml."""

    recipe: Literal["compose"]
    resume: None = None
    seeds: OneSeed = 1
    runs: Annotated[list[Words], Field(min_length=1)]
    compare: list[Words]
    training: Training
    optim: Optim
    # Filled in from the runs, so that the result can be evaluated without them.
    env: Environment | None
    sampler: Sampler | None
    eval: TaskEvaluation | None

    @property
    def task(self) -> str:
        """A label for the directory of the run."""
        return "multigoal"

    @property
    def leading(self) -> tuple[int, ...]:
        """Of networks and data: none, as there is one seed."""
        return ()


if __name__ == "__main__":  # before torch is imported, which takes seconds
    check_command_line(__file__, Settings, __doc__)

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import hydra
import torch
from omegaconf import DictConfig
from tensordict import TensorDict
from torchrl.envs import EnvBase
from torchrl.modules import ValueOperator

from torchrl_stein import AmortizedSVGDActor, SoftQLoss
from torchrl_stein.envs import MultiGoalWorld
from torchrl_stein.modules import SumQ
from torchrl_stein.objectives import BoxSquash, TanhSquash
from torchrl_stein.runs import (
    Session,
    build,
    draw_run,
    evaluate,
    load_loss,
    make_configured_task,
    make_mlp,
    read_component,
)


def sum_of_worlds(parts: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Options of the multi-goal world whose reward is the sum of those of several others.

    Goals of each part are lines of a coordinate of its own, x = 5 of one and y = 3 of the other,
    and no part ends or pays a bonus: squared distances to lines add up to those to their crossings.
    """
    worlds = [
        MultiGoalWorld(**{k: v for k, v in part.items() if k not in ("horizon", "init_sigma")})
        for part in parts
    ]
    for world in worlds:
        if world.ends_at_goal or world.goal_reward != 0:
            raise ValueError(
                "composition: every part must have ends_at_goal false and goal_reward 0, got "
                f"{world.ends_at_goal} and {world.goal_reward}"
            )
    shared = {}
    for name in ("distance_cost", "goal_threshold", "position_limit"):
        values = sorted({getattr(world, name) for world in worlds})
        if len(values) > 1:
            raise ValueError(f"composition: every part must have the same {name}, got {values}")
        shared[name] = values[0]
    goals = []
    for lines in product(*(world.goals for world in worlds)):
        axes = [[line[axis] for line in lines if line[axis] is not None] for axis in (0, 1)]
        if max(map(len, axes)) > 1:
            raise ValueError(
                "composition: goals of the parts must be lines of different coordinates, such as "
                f"(5, None) and (None, 3), got {[tuple(line) for line in lines]}"
            )
        goals.append([given[0] if given else None for given in axes])
    cost = sum(world.action_cost for world in worlds)
    total = {"goals": goals, "goal_reward": 0.0, "action_cost": cost, "ends_at_goal": False}
    horizon = {"horizon": parts[0]["horizon"]} if "horizon" in parts[0] else {}
    return horizon | total | shared


SQUASHES = {
    "unsquashed": TanhSquash(),
    "reference": BoxSquash(barrier=True),
    "none": BoxSquash(barrier=False),
}


def load_parts(cfg: Settings, session: Session) -> tuple[Settings, list[SoftQLoss]]:
    """The losses of the runs, and our settings, filled in with what the runs share."""
    parts, settings = [], []
    for run in cfg.runs:
        loss, of_run = load_loss(run, cfg.device)
        if of_run.recipe != "soft_q" or loss.num_qvalue_nets > 1 or of_run.seeds > 1:
            session.refuse(f"{run} must be a run of soft_q.py with one seed and one Q-network")
        if of_run.network.norm is not None:
            session.refuse(f"{run} must have network.norm=null, got {of_run.network.norm}")
        if of_run.env.name != "multigoal":
            session.refuse(f"{run} must be of the multigoal world, got {of_run.env.name}")
        parts.append(loss)
        settings.append(of_run)
    first = settings[0]
    for section, name in (("loss", "temperature"), ("loss", "gamma"), ("training", "reward_scale")):
        values = [getattr(getattr(of_run, section), name) for of_run in settings]
        if len(set(values)) > 1:
            got = " and ".join(str(value) for value in dict.fromkeys(values))
            session.refuse(f"every run must have the same {section}.{name}, got {got}")
    if first.training.reward_scale == "auto":  # then each Q-function has a unit of its own
        session.refuse("every run must have a number as training.reward_scale, got auto")
    try:
        world = sum_of_worlds([of_run.env.options for of_run in settings])
    except ValueError as error:
        session.refuse(str(error))
    sampler = Sampler(
        num_cells=first.network.num_cells,
        temperature=first.loss.temperature * first.training.temperature_scale,
        kernel=first.loss.kernel,
        num_action_samples=first.loss.num_action_samples,
        squash=first.loss.squash,
    )
    env = first.env.model_copy(update={"options": world})
    return cfg.model_copy(update={"env": env, "sampler": sampler, "eval": first.eval}), parts


def make_loss(
    cfg: Settings, env: EnvBase, qvalues: Sequence[ValueOperator] | None = None
) -> SoftQLoss:
    """A sampler, and the sum of Q-functions: those of the runs, or some that are to be loaded."""
    spec, cells = env.action_spec_unbatched, cfg.sampler.num_cells
    size = env.observation_spec["observation"].shape[-1] + spec.shape[-1]
    if qvalues is None:
        nets = [make_mlp(size, 1, cells) for _ in cfg.runs]
        qvalues = [ValueOperator(net, in_keys=["observation", "action"]) for net in nets]
    return SoftQLoss(
        AmortizedSVGDActor(make_mlp(size, spec.shape[-1], cells, cfg.device), action_spec=spec),
        SumQ(qvalues).requires_grad_(False),
        temperature=cfg.sampler.temperature,
        kernel=build(cfg.sampler.kernel),
        num_action_samples=cfg.sampler.num_action_samples,
        squash=SQUASHES[cfg.sampler.squash],
        delay_qvalue=False,
    ).to(cfg.device)


def replayed_states(cfg: Settings, session: Session) -> torch.Tensor:
    """The states that the runs have been in: all observations of their replay buffers."""
    states = []
    for run in cfg.runs:
        buffer = read_component(run, "buffer")
        if "transitions" not in buffer:
            session.refuse(f"the replay buffer of {run} is empty")
        states.append(buffer["transitions"]["observation"])
    return torch.cat(states).to(cfg.device)


def minibatches(states: torch.Tensor, size: int) -> Iterator[TensorDict]:
    """States, drawn again and again."""
    while True:
        chosen = states[torch.randint(len(states), (size,), device=states.device)]
        yield TensorDict({"observation": chosen}, [size])


@hydra.main(version_base="1.3", config_path="conf", config_name="compose")
def main(values: DictConfig) -> None:
    """Train a sampler on the fixed sum of Q-functions, then play all policies."""
    cfg = Settings.read(values)
    with Session(cfg) as session:
        train_seed, eval_seed, _ = session.seeds
        cfg, parts = load_parts(cfg, session)
        session.settings = cfg
        env = make_configured_task(cfg.env, 1, device=cfg.device, seed=train_seed)
        loss = make_loss(cfg, env, [part.qvalue_network for part in parts])
        optim = torch.optim.Adam(
            loss.actor_network_params.parameters(), lr=cfg.optim.lr, fused=True
        )
        schedule = torch.optim.lr_scheduler.LinearLR(
            optim, 1.0, cfg.optim.final_lr_fraction, total_iters=cfg.training.updates
        )
        others = {run: load_loss(run, cfg.device)[0] for run in cfg.compare}
        states = replayed_states(cfg, session)
        batches = minibatches(states, cfg.training.batch_size)
        session.track(loss=loss, optim=optim, schedule=schedule)
        session.print(f"Sampling from the sum of {len(parts)} Q-functions at {len(states)} states")

        for batch in session.batches(batches, total=cfg.training.updates, size=1):
            losses = loss.actor_loss(batch)
            losses["loss_actor"].backward()
            optim.step()
            optim.zero_grad()
            schedule.step()
            session.log_update(losses.detach())

        policies = {"composed": loss, **dict(zip(cfg.runs, parts, strict=True)), **others}
        results = {}
        for name, policy in policies.items():
            (results[name],), played = evaluate(
                policy.actor_network, cfg, episodes=cfg.eval.final_episodes, seed=eval_seed
            )
            if name == "composed":
                draw_run(session, cfg, played, loss)
        width = max(map(len, results))
        print(" " * width, *(f"{name:>13}" for name in results["composed"]))
        for name, metrics in results.items():
            print(f"{name:<{width}}", *(f"{value:13.3f}" for value in metrics.values()))
        session.write("comparison.json", results)
        session.finish(results["composed"], shown=[])


if __name__ == "__main__":
    main()
