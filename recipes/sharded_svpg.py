"""SVPG whose particles live on several processes, with the gradient that one process would have.

    torchrun --standalone --nproc-per-node 2 recipes/sharded_svpg.py     # A2C on the swing-up
    torchrun --standalone --nproc-per-node 4 recipes/sharded_svpg.py population.num_particles=64
    torchrun --standalone --nproc-per-node 2 recipes/sharded_svpg.py device=cuda    # a GPU each
    python recipes/sharded_svpg.py                                       # the same on one process
    python recipes/evaluate.py runs/sharded_svpg/...                     # every particle

Each process has its rows of the population, environments of its own and an optimizer; they exchange
particles and gradients at every update. Process 0 alone prints and writes. Every setting of
conf/sharded_svpg.yaml can be given on the command line.
"""

from typing import Literal, Self

from pydantic import model_validator

from torchrl_stein.runs.settings import (
    WORLDS,
    Count,
    Fraction,
    NonNegative,
    PopulationOptim,
    PopulationSettings,
    Section,
    Target,
    check_command_line,
)


class Loss(Section):
    """Arguments of ShardedSteinPolicyLoss and of the advantages."""

    temperature: NonNegative
    gamma: Fraction
    lmbda: Fraction


class Settings(PopulationSettings):
    """conf/sharded_svpg.yaml."""

    recipe: Literal["sharded_svpg"]
    kernel: Target
    loss: Loss
    optim: PopulationOptim
    resume: None  # checkpoints hold the policies, not what a run needs to go on
    processes: Count | None

    @model_validator(mode="after")
    def _a_world(self) -> Self:
        if self.env not in WORLDS:
            raise ValueError(f"env to be a batched world of this package, got {self.env}")
        return self


if __name__ == "__main__":  # before torch is imported, which takes seconds
    check_command_line(__file__, Settings, __doc__)

import os
from functools import partial

import hydra
import torch
import torch.distributed as dist
from omegaconf import DictConfig
from tensordict import TensorDict
from torch import Tensor
from torchrl.objectives import A2CLoss

from torchrl_stein.modules import shard_particles
from torchrl_stein.objectives import ShardedSteinPolicyLoss
from torchrl_stein.runs import (
    SeedFolders,
    Session,
    WorldCollector,
    estimate_advantages,
    finish_returns,
    log_returns,
    make_gaussian_actor,
    make_kernel,
    make_linear_critic,
    make_task,
    training_returns,
)


def join_processes(device: str) -> None:
    """Meet the processes that torchrun has started, or be the only one."""
    backend = "nccl" if device == "cuda" else "gloo"
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if "RANK" in os.environ:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


def gather(rows: Tensor) -> Tensor:
    """Rows of the particles of all processes ``[n, ...]``, from ours ``[n / R, ...]``."""
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def gather_losses(losses: TensorDict) -> TensorDict:
    """Of the whole population: losses are sums over the processes, the rest all know."""
    names = [name for name in losses.keys() if name.startswith("loss_")]  # noqa: SIM118
    shares = torch.stack([losses[name] for name in names])
    dist.all_reduce(shares)
    return losses.update(dict(zip(names, shares.unbind(), strict=True)))


@hydra.main(version_base="1.3", config_path="conf", config_name="sharded_svpg")
def main(values: DictConfig) -> None:
    """Each process collects with its policies; gradients are those of the whole population."""
    cfg = Settings.read(values)
    join_processes(cfg.device)
    rank, processes = dist.get_rank(), dist.get_world_size()
    cfg = cfg.model_copy(update={"processes": processes})
    with Session(cfg, rank=rank, processes=processes) as session:
        total_n = cfg.population.num_particles
        if total_n % processes:
            session.refuse(
                "population.num_particles must be a multiple of the number of processes "
                f"{processes}, got {total_n}"
            )
        n = total_n // processes
        # Drawn alike by all processes, of which each then takes its own.
        seeds = torch.tensor(session.spawn_seeds(4 * processes)).view(processes, 4)
        train_seed, eval_seed, final_seed, noise_seed = seeds[rank].tolist()
        task = partial(make_task, cfg.env, device=cfg.device, options=cfg.env_options)
        env = task((n, cfg.population.envs_per_particle), seed=train_seed)
        # It draws the particles of all processes, which do not depend on how many these are. It
        # holds trained ones only when they are saved.
        whole = make_gaussian_actor(env, total_n, cfg.population.num_cells)
        actor, critic = shard_particles(whole, rank, processes), make_linear_critic(env, n)
        loss = ShardedSteinPolicyLoss(
            A2CLoss(actor, critic, entropy_bonus=False, critic_coeff=None),
            kernel=make_kernel(cfg.kernel, whole, seed=cfg.seed),
            temperature=cfg.loss.temperature,
        )
        optim = torch.optim.Adam(loss.parameters(), lr=cfg.optim.lr, fused=True)
        torch.manual_seed(noise_seed)
        frames = env.numel() * cfg.training.steps
        total = frames * cfg.training.iterations
        collector = WorldCollector(env, actor, frames_per_batch=frames, total_frames=total)

        def test(episodes: int, seed: int) -> Tensor:
            """Mean return of each particle of all processes, from the same starts every time."""
            worlds = task((n, episodes), seed=seed)
            starts = worlds.draw_starts(worlds.batch_size)
            return gather(collector.mean_action_returns(starts, cfg.eval.max_steps).mean(1))

        session.track(actor=whole)
        folders = SeedFolders(session, 1)
        for data in session.batches(collector, total=total * processes):
            data.update(estimate_advantages(data, critic, cfg.loss.gamma, cfg.loss.lmbda))
            optim.zero_grad()
            losses = loss(data)
            sum(value for name, value in losses.items() if name.startswith("loss_")).backward()
            losses.update(loss.diagnose())
            optim.step()
            critic.module.fit(data["observation"], data["elapsed_steps"], data["value_target"])
            loss.step()
            # What is asked of all processes comes first, what one of them does with it after.
            session.log_update(gather_losses(losses.detach()), data)
            if session.log_due:
                log_returns(folders, "train", gather(training_returns(data)))
            if session.evaluation_due:
                tested = test(cfg.eval.episodes, eval_seed)
                with torch.no_grad():
                    rows = gather(loss.particles)
                    whole[0].module.particles.copy_(rows)
                session.notes["returns"] = tested.tolist()
                summary = log_returns(folders, "test", tested)
                session.evaluated(summary, summary["mean"])
        # Other starts than those by which one may have chosen the best.
        finish_returns(folders, test(cfg.eval.final_episodes, final_seed))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
