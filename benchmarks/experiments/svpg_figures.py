"""Pictures of the SVPG experiments, from the runs that svpg_report.py gathers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torchrl.envs.utils import ExplorationType

from benchmarks.experiments import figures
from benchmarks.experiments import svpg_statistics as stats
from benchmarks.experiments.figures import LearningCurves
from benchmarks.experiments.svpg_statistics import Group, Run
from torchrl_stein.runs import load_actor, make_task, play_episodes
from torchrl_stein.runs.saved import read_population

STATES_OF = ("svpg", "independent")
CURVES_OF = {"table": "learning_curves", "easy": "learning_curves", "ip_wgf": "ip_wgf"}  # suites


def draw_figures(runs: Sequence[Run], directory: Path, out: Path) -> None:
    """All figures that there are runs for."""
    by_suite = stats.runs_by_suite(runs, first=("table",))
    grouped = {suite: stats.group(members) for suite, members in by_suite.items()}
    temperatures = grouped.pop("temperature", [])
    methods = {s: [stats.method(g, groups) for g in groups] for s, groups in grouped.items()}
    colours = figures.mode_colours(name for names in methods.values() for name in names)
    curves: dict[str, dict[str, dict[str, LearningCurves]]] = {}  # by figure, panel and method
    returns: dict[str, dict[str, list]] = {}
    for suite, groups in grouped.items():
        several = len(groups) > len({stats.task_name(found.settings) for found in groups})
        for found, name in zip(groups, methods[suite], strict=True):
            title = stats.task_name(found.settings)
            if suite in CURVES_OF:
                panels = curves.setdefault(CURVES_OF[suite], {})
                panels.setdefault(title, {})[name] = stats.curves(found)
            if suite not in ("easy", "ip_wgf") and several:
                title += "" if suite == "table" else f"\n({suite})"
                finals = [run["final"] for run in found.runs.values()]
                returns.setdefault(title, {})[name] = finals
    for figure, panels in curves.items():
        panels = dict(sorted(panels.items()))
        figures.draw_learning_curves(out / f"svpg_{figure}.png", panels, colours=colours)
    if returns:
        figures.draw_sorted_returns(out / "svpg_sorted_returns.png", returns, colours=colours)
    if temperatures:
        draw_temperatures(temperatures, out / "svpg_temperature.png")
    draw_states(runs, directory, out / "svpg_states.png")


def draw_temperatures(groups: Sequence[Group], path: Path) -> None:
    """Best and mean particle in panels of their own, a colour per temperature."""
    from matplotlib import colormaps

    panels: dict[str, dict[str, LearningCurves]] = {}
    for found in groups:
        name = f"$\\alpha$ = {found.settings['loss.temperature']:g}"
        full = stats.curves(found)
        for what, values in (("best particle", full.best), ("mean of particles", full.mean)):
            if values is not None:
                panel = panels.setdefault(f"{stats.task_name(found.settings)}: {what}", {})
                panel[name] = LearningCurves(full.iterations, values)
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    shades = colormaps["viridis"](np.linspace(0, 0.9, len(names)))
    figures.draw_learning_curves(path, panels, colours=dict(zip(names, shades, strict=True)))


def draw_states(runs: Sequence[Run], directory: Path, path: Path) -> None:
    """States visited by the best policies of the first pair of runs that have checkpoints."""
    pairs: dict[tuple, dict[str, Path]] = {}
    for run in runs:
        settings, folder = run["settings"], directory / f"svpg_{run['suite']}" / run["name"]
        task = (settings["base"], settings["env"], run["suite"])
        as_in_paper = task == ("reinforce", "cartpole_swingup", "table")
        if settings["mode"] in STATES_OF and any(folder.glob("checkpoints/*/actor.pt")):
            pair = pairs.setdefault((not as_in_paper, *task, run["seed"]), {})
            pair[settings["mode"]] = folder
    complete = [pairs[key] for key in sorted(pairs) if len(pairs[key]) == len(STATES_OF)]
    try:
        if not complete:
            raise FileNotFoundError(f"{directory} has no {' and '.join(STATES_OF)} to compare")
        states = {mode: best_states(complete[0][mode]) for mode in STATES_OF}
        points = iter(embed([s for panels in states.values() for s in panels.values()]))
    except (FileNotFoundError, ImportError) as error:
        print(f"no figure of states: {error}")
        return
    rows = {mode: {title: next(points) for title in panels} for mode, panels in states.items()}
    figures.draw_state_densities(path, rows)


def best_states(run: Path, count: int = 4, episodes: int = 100, kept: int = 800) -> dict:
    """Some of the states that the best policies visit in test episodes, by rank and return."""
    actor, saved = load_actor(run), read_population(run)
    batch = (*saved.leading, episodes)
    env = make_task(saved.env, batch, seed=1, options=saved.env_options)
    played = play_episodes(env, actor, saved.eval.max_steps, ExplorationType.DETERMINISTIC)
    alive = torch.arange(played.data.shape[-1]) < played.lengths[..., None]
    returns, states = played.returns.mean(1), {}
    torch.manual_seed(0)
    for rank, i in enumerate(returns.argsort(descending=True)[:count].tolist(), 1):
        visited = played.data["observation"][i][alive[i]]
        chosen = visited[torch.randperm(len(visited))[:kept]]
        states[f"#{rank} ({returns[i]:.0f})"] = chosen.numpy()
    return states


def embed(groups: Sequence[np.ndarray], seed: int = 0) -> list[np.ndarray]:
    """A common t-SNE plane of groups of states ``[N_i, d]``, coordinates scaled alike."""
    try:
        from openTSNE import TSNE
    except ImportError as error:
        raise ImportError("openTSNE is missing: pip install openTSNE") from error
    states = np.concatenate(groups).astype(float)
    spread = states.std(0)
    states = (states - states.mean(0)) / np.where(spread > 0, spread, 1.0)
    perplexity = min(30.0, (len(states) - 1) / 4)
    points = np.asarray(TSNE(perplexity=perplexity, random_state=seed).fit(states))
    return np.split(points, np.cumsum([len(group) for group in groups])[:-1])
