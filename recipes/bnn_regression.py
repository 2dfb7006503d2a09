"""Bayesian neural network regression by particles: section 6.1 of arXiv:1808.03030.

    python recipes/bnn_regression.py                                # data that need no download
    python recipes/bnn_regression.py data=houses.csv target=price   # any table of numbers
    python recipes/bnn_regression.py data=uci/yacht method=svgd training.steps=10_000
    python recipes/bnn_regression.py cost._target_=torchrl_stein.objectives.WGFPotential weight=8

Trains on many random splits at once and prints the error and the log-likelihood of their test
parts, mean +- standard error over the splits. Every setting of conf/bnn_regression.yaml can be
given on the command line.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from torchrl_stein.runs.settings import (
    Compile,
    Count,
    Fraction,
    NonNegative,
    Positive,
    RecipeSettings,
    Section,
    Target,
    Words,
    check_command_line,
)


class Splits(Section):
    """Into training and test parts."""

    num_splits: Count
    test_fraction: Annotated[float, Field(gt=0, lt=1)]


class Posterior(Section):
    """Arguments of RegressionPosterior."""

    num_particles: Count
    num_cells: Count
    weight_precision: Positive | None


class Training(Section):
    """Numbers of the loop."""

    steps: Count
    final_lr_fraction: Fraction
    batch_size: Count
    eval_interval: Count
    log_interval: Count
    checkpoint_interval: Count


class Optim(Section):
    """Arguments of RMSprop."""

    lr: Positive
    alpha: Fraction
    eps: Positive


class Settings(RecipeSettings):
    """conf/bnn_regression.yaml."""

    recipe: Literal["bnn_regression"]
    resume: None = None  # the order of the rows is not in a checkpoint
    method: Literal["svgd", "wgf"]
    data: Words | None
    target: str | int | None
    splits: Splits
    posterior: Posterior
    kernel: Target
    weight: NonNegative
    cost: Target
    training: Training
    optim: Optim
    compile: Compile

    @model_validator(mode="after")
    def _target_of_data(self) -> Self:
        if self.data is None and self.target is not None:
            raise ValueError(f"data, of which target names a column; target is {self.target}")
        return self

    @property
    def task(self) -> str:
        """A label for the directory of the run."""
        return self.method


if __name__ == "__main__":  # before torch is imported, which takes seconds
    check_command_line(__file__, Settings, __doc__)

import math
import statistics
import time
from functools import partial

import hydra
import torch
from omegaconf import DictConfig
from tensordict import TensorDict
from torch import Tensor

from torchrl_stein.regression import (
    ParticleFlow,
    RegressionPosterior,
    diabetes_table,
    make_splits,
    minibatches,
    predictive_scores,
    read_table,
)
from torchrl_stein.runs import Session, build, compiled


def summarize(values: Tensor) -> dict[str, object]:
    """Mean and standard error over splits, and all values."""
    splits = values.tolist()
    error = statistics.stdev(splits) / math.sqrt(len(splits)) if len(splits) > 1 else None
    return {"mean": statistics.fmean(splits), "standard_error": error, "splits": splits}


@torch.no_grad()
def evaluate(
    posterior: RegressionPosterior, features: Tensor, target: Tensor, target_scale: Tensor
) -> dict[str, dict]:
    """Scores on the test parts."""
    scores = predictive_scores(posterior.predict(features), target, target_scale)
    for name, values in scores._asdict().items():
        if not values.isfinite().all():
            raise FloatingPointError(f"{name} is {values.tolist()}")
    return {name: summarize(values) for name, values in scores._asdict().items()}


@hydra.main(version_base="1.3", config_path="conf", config_name="bnn_regression")
def main(values: DictConfig) -> None:
    """Particles, kernel, trust region and optimizer; one minibatch of every split per step."""
    cfg = Settings.read(values)
    with Session(cfg) as session:
        split_seed, batch_seed, _ = session.seeds
        table = diabetes_table() if cfg.data is None else read_table(cfg.data, cfg.target)
        splits = make_splits(table, **cfg.splits.model_dump(), seed=split_seed, device=cfg.device)
        num_splits, rows, num_features = splits.train_features.shape
        posterior = RegressionPosterior(num_features, num_splits, **cfg.posterior.model_dump())
        posterior = posterior.to(cfg.device)
        optim = torch.optim.RMSprop(posterior.parameters(), **cfg.optim.model_dump())
        flow = ParticleFlow(
            posterior,
            kernel=build(cfg.kernel),
            optimizer=optim,
            cost=None if cfg.method == "svgd" else build(cfg.cost),
            weight=cfg.weight,
        )
        schedule = torch.optim.lr_scheduler.LinearLR(
            optim, 1.0, cfg.training.final_lr_fraction, total_iters=cfg.training.steps
        )
        if cfg.compile.compile:  # the posterior and the forces, each whole
            flow.compile(partial(torch.compile, fullgraph=True, mode=cfg.compile.compile_mode))

        def update(batch: TensorDict) -> TensorDict:
            direction = flow.step(batch["features"], batch["target"], num_rows=rows)
            return TensorDict(
                {"transport_ratio": direction.transport.norm() / direction.stein.norm()}
            )

        update = compiled(update, cfg.compile, optim)
        generator = torch.Generator(cfg.device).manual_seed(batch_seed)
        data = minibatches(
            splits.train_features, splits.train_target, cfg.training.batch_size, generator
        )
        session.track(posterior=posterior, optim=optim, schedule=schedule)
        session.print(
            f"{table.name}: {num_splits} splits, {rows} rows to train on, {num_features} features"
        )
        evaluations, begin = [], time.perf_counter()
        for features, target in session.batches(data, total=cfg.training.steps, size=1):
            session.log_update(update(TensorDict({"features": features, "target": target})))
            schedule.step()
            if session.evaluation_due:
                scores = evaluate(
                    posterior, splits.test_features, splits.test_target, splits.target_scale
                )
                evaluations.append({"step": session.steps, **scores})
                session.log({f"test/{name}": score["mean"] for name, score in scores.items()})
                shown = {}
                for name, score in scores.items():
                    shown[name] = score["mean"]
                    if score["standard_error"] is not None:
                        shown[f"{name} +-"] = score["standard_error"]
                session.evaluated(shown, scores["log_likelihood"]["mean"])
        shape = {"name": table.name, "train_rows": rows, "features": num_features}
        seconds = time.perf_counter() - begin
        session.finish(
            {**shape, "seconds": seconds, **evaluations[-1], "evaluations": evaluations}, shown=[]
        )


if __name__ == "__main__":
    main()
