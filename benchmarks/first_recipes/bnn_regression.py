"""Bayesian neural network regression by particles: section 6.1 of arXiv:1808.03030.

    python recipes/bnn_regression.py                                # data that need no download
    python recipes/bnn_regression.py data=houses.csv target=price   # any table of numbers
    python recipes/bnn_regression.py data=uci/yacht method=svgd training.steps=10_000
    python recipes/bnn_regression.py cost._target_=torchrl_stein.objectives.PaperCost weight=8

Trains on many random splits at once and prints the error and the log-likelihood of their test
parts, mean +- standard error over the splits. Every setting of conf/bnn_regression.yaml can be
given on the command line.
"""

import math
import os
import statistics
import sys
import time
from functools import partial

os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")  # read when torchrl is imported
if __name__ == "__main__":  # before torch is imported, which takes seconds
    from command_line import answer_help

    answer_help(__doc__, "bnn_regression")

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from torchrl_stein.regression import (
    ParticleFlow,
    RegressionPosterior,
    RegressionSplits,
    Table,
    diabetes_table,
    make_splits,
    minibatches,
    predictive_scores,
    read_table,
)
from torchrl_stein.training import (
    CompileSettings,
    Run,
    catch_interrupt,
    check_overrides,
    linear_schedule,
    make_capturable,
    prepare_cpu,
    read_compile_settings,
    spawn_seeds,
)

METHODS = ("svgd", "wgf")

Evaluation = dict[str, object]  # the step and, for each score, its summary over the splits


def load_table(cfg: DictConfig) -> Table:
    """The data to learn."""
    if cfg.data is None and cfg.target is not None:
        raise ValueError(f"target names a column of data, which is null; got {cfg.target}")
    return diabetes_table() if cfg.data is None else read_table(cfg.data, cfg.target)


def make_flow(cfg: DictConfig, splits: RegressionSplits) -> ParticleFlow:
    """Particles, kernel, trust region and optimizer: the algorithm."""
    if cfg.method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {cfg.method}")
    num_splits, _, num_features = splits.train_features.shape
    posterior = RegressionPosterior(num_features, num_splits, **cfg.posterior).to(cfg.device)
    return ParticleFlow(
        posterior,
        kernel=instantiate(cfg.kernel),
        optimizer=torch.optim.RMSprop(posterior.parameters(), **cfg.optim),
        cost=None if cfg.method == "svgd" else instantiate(cfg.cost),
        weight=cfg.weight,
    )


def summarize(values: Tensor) -> dict[str, object]:
    """Mean and standard error over splits, and all values."""
    splits = values.tolist()
    error = statistics.stdev(splits) / math.sqrt(len(splits)) if len(splits) > 1 else None
    return {"mean": statistics.fmean(splits), "standard_error": error, "splits": splits}


@torch.no_grad()
def evaluate(step: int, posterior: RegressionPosterior, splits: RegressionSplits) -> Evaluation:
    """Scores on the test parts."""
    prediction = posterior.predict(splits.test_features)
    scores = predictive_scores(prediction, splits.test_target, splits.target_scale)
    for name, values in scores._asdict().items():
        if not values.isfinite().all():
            raise FloatingPointError(f"{name} is {values.tolist()} at step {step}")
    return {"step": step} | {name: summarize(v) for name, v in scores._asdict().items()}


def report(evaluation: Evaluation, elapsed: float, left: float) -> None:
    """One line on the terminal."""
    cells = []
    for label, name in (("RMSE", "rmse"), ("log-likelihood", "log_likelihood")):
        score = evaluation[name]
        error = score["standard_error"]
        cells.append(f"{label} {score['mean']:.4g}" + (f" +- {error:.2g}" if error else ""))
    line = f"step {evaluation['step']}  {'  '.join(cells)}  {elapsed:.0f} s, {left:.0f} s left"
    print(line, flush=True)


def train(
    cfg: DictConfig,
    run: Run,
    flow: ParticleFlow,
    fusion: CompileSettings,
    schedule: LRScheduler,
    splits: RegressionSplits,
    batch_seed: int,
) -> tuple[list[Evaluation], bool]:
    """All evaluations, and whether the run is complete (not interrupted)."""
    generator = torch.Generator(cfg.device).manual_seed(batch_seed)
    features, target = splits.train_features, splits.train_target
    batches = minibatches(features, target, cfg.training.batch_size, generator)
    move = fusion.captured(partial(flow.step, num_rows=target.shape[1]), tensors=True)
    steps, evaluations, begin = cfg.training.steps, [], time.perf_counter()
    with catch_interrupt() as stop:
        for step in range(1, steps + 1):
            direction = move(*next(batches))
            schedule.step()
            if step % cfg.training.eval_interval == 0 or step == steps:
                evaluation = evaluate(step, flow.posterior, splits)
                evaluations.append(evaluation)
                elapsed = time.perf_counter() - begin
                report(evaluation, elapsed, elapsed / step * (steps - step))
                means = {f"test/{k}": evaluation[k]["mean"] for k in ("rmse", "log_likelihood")}
                ratio = direction.transport.norm() / direction.stein.norm()
                run.log(means | {"train/transport_ratio": ratio.item()}, step)
            if stop.requested:
                print(f"Stopped at step {step}; scores so far are in {run.directory}")
                return evaluations, False
    return evaluations, True


@hydra.main(version_base="1.3", config_path="conf", config_name="bnn_regression")
def main(cfg: DictConfig) -> None:
    """Read, train, evaluate."""
    prepare_cpu(cfg.threads)
    split_seed, batch_seed = spawn_seeds(cfg.seed, 2)
    try:
        check_overrides(HydraConfig.get().overrides.task)
        table = load_table(cfg)
        splits = make_splits(table, **cfg.splits, seed=split_seed, device=cfg.device)
        fusion = read_compile_settings(cfg)
        fusion.check(cfg.device)
        flow = make_flow(cfg, splits)
        if fusion.compile:
            flow.compile(fusion.compiled)
        if fusion.cudagraphs:
            make_capturable(flow.optimizer)
        steps, final_fraction = cfg.training.steps, cfg.training.final_lr_fraction
        schedule = linear_schedule(flow.optimizer, steps, final_fraction)
    except (FileNotFoundError, TypeError, ValueError) as error:
        sys.exit(f"bnn_regression.py: {error}")
    num_splits, rows, features = splits.train_features.shape
    print(f"{table.name}: {num_splits} splits, {rows} rows to train on, {features} features")
    run = Run(cfg.run_dir, OmegaConf.to_container(cfg, resolve=True), cfg.logger)
    begin = time.perf_counter()
    evaluations, complete = train(cfg, run, flow, fusion, schedule, splits, batch_seed)
    if complete:
        shape = {"name": table.name, "train_rows": rows, "features": features}
        shape["seconds"] = time.perf_counter() - begin
        run.save_json("summary.json", {**shape, **evaluations[-1], "evaluations": evaluations})
        print(f"Results: {run.directory}")
    run.close()
    if not complete:
        sys.exit(130)  # the shell's code for Ctrl-C


if __name__ == "__main__":
    main()
