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

import math
import os
import sys

os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")  # read when torchrl is imported
if __name__ == "__main__":  # before torch is imported, which takes seconds
    from command_line import answer_help

    answer_help(__doc__, "sharded_svpg")

import hydra
import torch
import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from torch import Tensor
from torchrl.modules import ProbabilisticActor
from torchrl.objectives import A2CLoss

from torchrl_stein.envs import BatchedEnv
from torchrl_stein.kernels import IdentityKernel
from torchrl_stein.modules import find_population, shard_particles
from torchrl_stein.objectives import ShardedSteinPolicyLoss
from torchrl_stein.training import (
    Checkpoints,
    PopulationAgent,
    Run,
    WorldCollector,
    check_losses,
    check_overrides,
    exit_if_unwritable,
    make_gaussian_actor,
    make_linear_critic,
    make_task,
    prepare_cpu,
    print_summary,
    return_metrics,
    spawn_seeds,
    training_returns,
)


def join_processes(device: str) -> torch.device | str:
    """Meet the processes that torchrun has started, or be the only one; where to compute."""
    backend = "nccl" if device == "cuda" else "gloo"
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if "RANK" in os.environ:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    return torch.device("cuda", torch.cuda.current_device()) if device == "cuda" else device


def check_settings(cfg: DictConfig) -> None:
    """Refuse what cannot be, before anything is made."""
    if cfg.mode not in ("svpg", "independent"):
        raise ValueError(f"mode must be one of svpg, independent; got {cfg.mode}")
    n, processes = cfg.population.num_particles, dist.get_world_size()
    if n < 1 or n % processes:
        raise ValueError(
            f"population.num_particles must be a multiple of the number of processes {processes}; "
            f"got {n}"
        )
    for name in ("population.envs_per_particle", "training.iterations", "training.steps"):
        if OmegaConf.select(cfg, name) < 1:
            raise ValueError(f"{name} must be >= 1; got {OmegaConf.select(cfg, name)}")
    if cfg.resume is not None:
        raise ValueError(
            "resume must be null: checkpoints hold the policies of all processes, not the state "
            f"that a run needs to go on; got {cfg.resume}"
        )
    env = make_task(cfg.env, (1, 1), seed=0, options=cfg.env_options)
    if not isinstance(env, BatchedEnv):
        raise ValueError(f"env must be a batched world of this package; got {cfg.env}")


def gather(rows: Tensor) -> Tensor:
    """Rows of the particles of all processes ``[n, ...]``, from ours ``[n / R, ...]``."""
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def gather_losses(losses: TensorDict, figures: dict[str, Tensor]) -> TensorDict:
    """Of the whole population: losses are sums over the processes, the rest all know."""
    # Iterating a TensorDict goes over its batch, hence keys().
    names = [name for name in losses.keys() if name.startswith("loss_")]  # noqa: SIM118
    shares = torch.stack([losses[name] for name in names])
    dist.all_reduce(shares)
    totals = dict(zip(names, shares.unbind(), strict=True))
    known = ("temperature", "kernel_offdiag", "kernel_bandwidth")
    return TensorDict(totals | {k: losses[k] for k in known if k in losses} | figures)


class Worker:
    """What one process has: its particles, their worlds and what they learn."""

    def __init__(self, cfg: DictConfig, device: torch.device | str) -> None:
        self.cfg, self.device = cfg, device
        rank, processes = dist.get_rank(), dist.get_world_size()
        self.n = cfg.population.num_particles // processes
        # Drawn alike by all processes, of which each then takes its own.
        seeds = torch.tensor(spawn_seeds(cfg.seed, 4 * processes)).view(processes, 4)
        train_seed, self.eval_seed, self.final_seed, noise_seed = seeds[rank].tolist()
        env = self.task(cfg.population.envs_per_particle, train_seed)
        # Of all processes, under the same seed: what it draws does not depend on their number.
        # Holds particles only when they are saved.
        self.whole = make_gaussian_actor(
            env, cfg.population.num_particles, cfg.population.num_cells
        )
        self.agent = self.make_agent(env, shard_particles(self.whole, rank, processes))
        torch.manual_seed(noise_seed)
        frames = env.batch_size.numel() * cfg.training.steps
        self.batches = WorldCollector(
            env,
            self.agent.actor,
            frames_per_batch=frames,
            total_frames=frames * cfg.training.iterations,
        )
        self.frames_per_iteration = frames * processes

    def task(self, envs: int, seed: int) -> BatchedEnv:
        """Worlds of our particles."""
        options = self.cfg.env_options
        return make_task(
            self.cfg.env, (self.n, envs), device=self.device, seed=seed, options=options
        )

    def make_agent(self, env: BatchedEnv, actor: ProbabilisticActor) -> PopulationAgent:
        """Our policies and baselines, the loss and the optimizer."""
        cfg, critic = self.cfg, make_linear_critic(env, self.n)
        kernel = IdentityKernel() if cfg.mode == "independent" else instantiate(cfg.loss.kernel)
        loss = ShardedSteinPolicyLoss(
            A2CLoss(actor, critic, entropy_bonus=False, critic_coeff=None),
            kernel=kernel,
            temperature=cfg.loss.temperature,
        )
        return PopulationAgent(
            actor=actor,
            critic=critic,
            fit_critic=True,
            loss=loss,
            optimizer=torch.optim.Adam(loss.parameters(), lr=cfg.optim.lr, fused=True),
            gamma=cfg.loss.gamma,
            lmbda=cfg.loss.lmbda,
        )

    def evaluate(self, episodes: int, seed: int) -> Tensor:
        """Mean return of each particle of all processes, from the same starts every time."""
        env = self.task(episodes, seed)
        starts = env.draw_starts(env.batch_size)
        returns = self.batches.mean_action_returns(starts, self.cfg.eval.max_steps)
        return gather(returns.mean(1))

    def gather_actor(self) -> ProbabilisticActor:
        """The policies of all processes as one population."""
        rows = gather(self.agent.loss.particles.detach())
        with torch.no_grad():
            find_population("sharded_svpg.py", "actor", self.whole)[1].particles.copy_(rows)
        return self.whole


def train(worker: Worker, writer: "Writer | None") -> None:
    """Collect, update, and tell the writer, which process 0 alone has."""
    settings, last = worker.cfg.training, worker.cfg.training.iterations
    for i, data in enumerate(worker.batches, 1):
        losses, figures = worker.agent.update(data)
        step = i * worker.frames_per_iteration
        # What is asked of all processes comes first, what one of them does with it after.
        if i % settings.log_interval == 0 or i == last:
            totals = gather_losses(losses, figures)
            check_losses(totals, i, data)
            returns = gather(training_returns(data))
            if writer is not None:
                writer.log(totals, returns, step)
        if i % settings.eval_interval == 0 or i == last:
            returns = worker.evaluate(worker.cfg.eval.episodes, worker.eval_seed)
            actor = worker.gather_actor()
            if writer is not None:
                writer.report(actor, returns, i, step)


class Writer:
    """The directory of the run, and the terminal."""

    def __init__(self, cfg: DictConfig, actor: ProbabilisticActor) -> None:
        config = OmegaConf.to_container(cfg, resolve=True)
        config["processes"] = dist.get_world_size()
        self.result = Run(cfg.run_dir, config, cfg.logger)
        self.checkpoints = Checkpoints(
            self.result.directory / "checkpoints",
            loss=actor,
            config=config,
            others={"actor": actor},  # by the name that evaluate.py asks for
        )

    def log(self, losses: TensorDict, returns: Tensor, step: int) -> None:
        """Losses, figures and training returns."""
        metrics = {f"train/{name}": value.item() for name, value in losses.items()}
        known = {k: v for k, v in return_metrics(returns).items() if not math.isnan(v)}
        self.result.log(metrics | {f"train/return_{k}": v for k, v in known.items()}, step)

    def report(self, actor: ProbabilisticActor, returns: Tensor, i: int, step: int) -> None:
        """An evaluation, and the policies it was of."""
        metrics = return_metrics(returns)
        self.result.log({f"test/return_{name}": value for name, value in metrics.items()}, step)
        summary = "  ".join(f"{name} {metrics[name]:.1f}" for name in ("max", "top4", "mean"))
        print(f"iteration {i:>5}  test return: {summary}", flush=True)
        self.checkpoints.save(step, metrics["mean"], returns=returns.tolist())

    def finish(self, returns: Tensor) -> None:
        """Final returns, from other starts than those by which one may have chosen the best."""
        metrics = return_metrics(returns)
        self.result.save_json("summary.json", metrics)
        print_summary(self.result, {name: metrics[name] for name in ("max", "top4", "mean")})
        self.result.close()


@hydra.main(version_base="1.3", config_path="conf", config_name="sharded_svpg")
def main(cfg: DictConfig) -> None:
    """Train and evaluate."""
    prepare_cpu(cfg.threads)
    device = join_processes(cfg.device)
    first = dist.get_rank() == 0
    try:
        check_overrides(HydraConfig.get().overrides.task)
        check_settings(cfg)
        worker = Worker(cfg, device)
    except (ImportError, TypeError, ValueError) as error:
        sys.exit(f"sharded_svpg.py: {error}" if first else 1)  # all say the same, one says it
    with exit_if_unwritable("sharded_svpg.py", cfg.run_dir):
        writer = Writer(cfg, worker.whole) if first else None
        train(worker, writer)
        returns = worker.evaluate(cfg.eval.final_episodes, worker.final_seed)
        if writer is not None:
            writer.finish(returns)
    dist.destroy_process_group()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
