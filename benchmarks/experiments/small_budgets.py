"""Robots at 100 000 steps, one at 300 000, and mazes with several goals at the published budgets.

    python -m benchmarks.experiments.small_budgets run hopper/sac hopper/svgd maze_simple/svgd
    python -m benchmarks.experiments.small_budgets report
    python -m benchmarks.experiments.small_budgets actions halfcheetah/sac halfcheetah/svgd
    python -m benchmarks.experiments.small_budgets picture maze_simple/svgd

All seeds of a method are one process, of ``crossq`` one after the other; started again it goes on
from the last checkpoint: ``runs/small_budgets/<task>/<method>``, then ``<method>.1`` and so on. All
methods have the same networks and batches, half as wide as SAC is published, for one core, and the
same rates but those of CrossQ; each baseline has its own exploration, targets and temperature.

``crossq`` is SAC with batch renormalization in its critics (Bhatt et al. 2024), by TorchRL's loss;
``svgd_crossq`` is ``svgd`` with the same critics, delay of the actor and rates.
``pretrained`` is ``svgd`` in a hallway from the networks of ant_pretrain/svgd, which runs first.
``dp_wgf`` is ``svgd`` with the trust region of Zhang et al. 2018; ``dp_wgf_v`` has a value network
and a mixture of four Gaussians beside, ``dp_wgf_v_plain`` is that without the region. ``s2ac`` is
smaller than published, four particles and one step of SVGD for ten and three, and begins with the
temperature of SAC. ``trpo`` has the networks, the step and the linear baseline of its recipe, and
batches of 1000 steps of each policy; its seeds are the independent policies of one population.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import ROOT
from benchmarks.recipes import start_recipe
from torchrl_stein.comparison import interquartile_mean, stratified_bootstrap

RUNS = ROOT / "runs" / "small_budgets"
RESULTS = ROOT / "benchmarks" / "results"

ROBOTS = {
    "hopper": "Hopper-v5",
    "halfcheetah": "HalfCheetah-v5",
    "walker2d": "Walker2d-v5",
    "ant": "Ant-v5",
    "swimmer": "Swimmer-v5",
    "swimmer_finish_line": "torchrl_stein/SwimmerFinishLine-v0",
    "ant_maze": "torchrl_stein/AntMaze-v0",
    "ant_pretrain": "torchrl_stein/AntPretrain-v0",
    "ant_hallway": "torchrl_stein/AntHallwayWide-v0",
    "walker2d_300k": "Walker2d-v5",
}
# What is reported, where it is not the return alone.
METRICS = {
    "swimmer_finish_line": ["success", "return"],
    "ant_maze": ["success", "min_distance_to_target"],
}
OF_MAZES = ["goals_reached", "success", "removal_sr5", "obstacle_sr5"]
# Of tasks that take longest there are three seeds, of the others five. Two more of Ant came later,
# when three had left open which method is ahead.
LATER = {("ant", "sac"): [3, 4], ("ant", "svgd_crossq"): [3, 4]}
THREE_SEEDS = ("walker2d", "ant", "swimmer", "ant_maze", "ant_pretrain", "ant_hallway", "maze_hard")
THREE_SEEDS += ("walker2d_300k",)

COMPILED = "compile.compile=true"  # an update takes half the time
COMMON = [
    "network.num_cells=[128,128]",
    "training.batch_size=128",
    "training.warmup_frames=5000",
    "training.eval_interval=5000",
    "training.checkpoint_interval=10_000",
    "training.log_interval=1000",
    "optim.lr_qvalue=1e-3",
    "optim.lr_actor=3e-4",
    "optim.target_update_interval=null",
    "optim.target_tau=0.005",
    "training.reward_scale=1",
    "eval.video_steps=0",
    COMPILED,
]
ROBOT = ["training.total_frames=100_000", "training.buffer_size=100_000", "eval.max_steps=1000"]
ROBOT += ["eval.episodes=5", "eval.final_episodes=10"]
LONG = ["training.total_frames=300_000", "training.buffer_size=300_000"]
# A robot, the temperature where a learnt one begins and the share of the box two actions keep.
LEARNT = ["loss.temperature=1.0", "loss.fixed_alpha=false", "optim.lr_alpha=3e-4"]
SAC = [*LEARNT, "loss.loss_function=l2"]
S2AC = [*LEARNT, "loss.num_action_samples=4", "loss.num_steps=1"]
# What soft Q-learning has with a value network and without.
SOFT = ["loss.num_action_samples=4", "loss.num_qvalue_nets=2", "loss.fixed_alpha=false"]
SOFT += ["optim.lr_alpha=1e-3", "exploration.noise=0", "exploration.theta=null"]
SOFT += ["exploration.uniform_fraction=0"]
SOFT_Q = [*SOFT, "loss.value_target=expected", "loss.num_value_samples=2"]
SOFT_Q += ["loss.alpha_target=log_distance"]
SOFT_QV = [*SOFT, "loss.value_target=soft", "loss.num_value_samples=4", "actor.num_particles=4"]
SOFT_QV += ["loss.temperature=0.1"]
REGION = ["trust_region.weight=0.4", "trust_region.num_action_samples=4"]
ON_ROBOTS = ["loss.beta=0.2", "loss.temperature=0.1"]
# Entropy relative to uniform actions: no step is worth anything by itself. A goal pays 100, and a
# difference of alpha between two of them, or an error, favours one by a factor of e.
IN_MAZES = ["loss.num_action_samples=8", "loss.num_qvalue_nets=2", "loss.num_value_samples=8"]
IN_MAZES += ["loss.value_target=mellowmax", "loss.temperature=10", "exploration.noise=0"]
IN_MAZES += ["exploration.theta=null", "exploration.uniform_fraction=0"]
# As Wang et al. have it, in mazes.
DRAC = ["loss.value_target=entropy_regularized", "loss.value_proposal=log_distance"]
DRAC += ["loss.num_value_samples=2", "loss.fixed_alpha=false", "loss.alpha_target=log_distance"]
DRAC += ["loss.beta=0.8", "loss.temperature=1.0", "optim.lr_alpha=1e-3"]
CROSSQ = ["critics=crossq", "optim.lr_actor=1e-3"]
NARROW = "+loss.kernel.bandwidth.scale=0.3"
NO_REPULSION = ["loss.force=repulsion", "~loss.kernel.bandwidth", "+loss.kernel.scale=0.0"]
NO_REPULSION += ["loss.kernel._target_=torchrl_stein.kernels.ScaledKernel"]
NO_REPULSION += ["+loss.kernel.kernel._target_=torchrl_stein.kernels.RBFKernel"]


Curves = dict[int, dict[int, float]]  # of a metric: seed, step, value


class Method(NamedTuple):
    """A recipe and its settings."""

    recipe: str
    settings: list[str]


FORCES = {
    "svgd": [],
    "svgd_narrow": [NARROW],
    "svgd_narrower": ["+loss.kernel.bandwidth.scale=0.1"],
    "svgd_crossq": [*CROSSQ, "loss.num_value_samples=1"],
    "repulsion": ["loss.force=repulsion", NARROW],
    "no_repulsion": NO_REPULSION,
    "log_distance": ["loss.force=log_distance", "loss.squash=none"],
    "dp_wgf": REGION,
}
BASELINES = {
    "sac": Method("sac", SAC),
    "td3": Method("td3", ["exploration.noise=0.1", "exploration.uniform_fraction=0"]),
    "ddpg": Method("ddpg", ["exploration.noise=0.1", "exploration.uniform_fraction=0"]),
    "s2ac": Method("s2ac", S2AC),
    "crossq": Method("sac", [*SAC, *CROSSQ, "optim.lr_alpha=1e-3", "seeds=1"]),
}
WITH_VALUES = {
    "dp_wgf_v": Method("soft_qv", [*SOFT_QV, *REGION]),
    "dp_wgf_v_plain": Method("soft_qv", [*SOFT_QV, "trust_region.weight=0"]),
}
TRPO = ["kernel=none", "population.envs_per_particle=2", "training.steps=500"]
TRPO += ["training.iterations=100", "training.eval_interval=5", "training.checkpoint_interval=10"]
TRPO += ["eval.episodes=5", "eval.final_episodes=10", "eval.video_steps=0"]


def methods_of(task: str) -> dict[str, Method]:
    """By name."""
    if task not in ROBOTS:
        own, baselines, common = [f"task=goal_{task}"], BASELINES, IN_MAZES
    else:
        robot = task.removesuffix("_300k")
        own = [f"task={robot}", *ROBOT, *(LONG if robot != task else [])]
        # Evaluated as published: by the mean action.
        baselines = {
            name: Method(m.recipe, [*m.settings, "eval.deterministic=true"])
            for name, m in BASELINES.items()
        }
        common = [*SOFT_Q, *ON_ROBOTS]
    forces = {n: Method("soft_q", [*common, *more]) for n, more in FORCES.items()}
    if task in ROBOTS:
        forces |= WITH_VALUES
    else:
        forces["log_distance"].settings.extend(DRAC)
        # Eq. (10) itself, with a temperature at which entropy pays less than a goal.
        soft = ["loss.value_target=soft", "loss.num_value_samples=16", "loss.temperature=0.1"]
        forces["svgd_soft"] = Method("soft_q", [*common, *soft])
        del forces["svgd_crossq"]  # its value is that of one of the sampler's own actions
    found = {**baselines, **forces}
    seeds = 3 if task in THREE_SEEDS else 5
    own = [*own, f"seeds={seeds}", *COMMON]
    methods = {name: Method(m.recipe, [*own, *m.settings]) for name, m in found.items()}
    if task == "ant_hallway":
        origin = folders("ant_pretrain", "svgd")
        init = f"init_from={origin[-1] if origin else RUNS / 'ant_pretrain' / 'svgd'}"
        methods["pretrained"] = Method("soft_q", [*methods["svgd"].settings, init])
    if task in ROBOTS:
        policies = [f"env={ROBOTS[task]}", f"population.num_particles={seeds}"]
        length = [] if robot == task else ["training.iterations=300"]
        methods["trpo"] = Method("trpo", [*policies, *TRPO, *length])
    return methods


TASKS = [*ROBOTS, "maze_simple", "maze_medium", "maze_hard"]


def folders(task: str, method: str) -> list[Path]:
    """Of a method's processes, in the order in which they went on from each other."""
    first = RUNS / task / method
    later = sorted(RUNS.glob(f"{task}/{method}.*/"), key=lambda path: int(path.suffix[1:]))
    return [path for path in (first, *later) if path.is_dir()]


def run(name: str) -> None:
    """Begin a method or go on with it, unless it is done."""
    task, method = name.split("/")
    recipe, settings = methods_of(task)[method]
    alone = range(3 if task in THREE_SEEDS else 5) if "seeds=1" in settings else []
    processes = [(f"seed{k}", [f"seed={k}"]) for k in alone] or [("", [])]
    if (task, method) in LATER:
        first, *rest = LATER[task, method]
        processes += [("later", [f"seed={first}", f"seeds={1 + len(rest)}"])]
    for own, more in processes:
        known = [path / own for path in folders(task, method) if (path / own).is_dir()]
        if any((path / "summary.json").exists() for path in known):
            continue
        saved = [path for path in known if any((path / "checkpoints").glob("checkpoint-*"))]
        directory = RUNS / task / (f"{method}.{len(known)}" if known else method) / own
        start = [f"resume={saved[-1]}", COMPILED] if saved else [*settings, *more]
        start_recipe(recipe, start, directory)


def curves(task: str, method: str) -> dict[str, Curves]:
    """Evaluations of each seed by metric and step; later processes have the last word."""
    found: dict[str, Curves] = {}
    for folder in folders(task, method):
        for path in folder.rglob("seed*/metrics/scalars/eval/*.csv"):
            seed = int(path.parents[3].name.removeprefix("seed"))
            own = found.setdefault(path.stem, {}).setdefault(seed, {})
            own |= scalars(path)
        policies = list(folder.glob("metrics/scalars/test/return_particle_*.csv"))
        for path in policies:  # of a population, whose steps are those of all
            number = int(path.stem.removeprefix("return_particle_"))
            own = found.setdefault("return", {}).setdefault(number, {})
            own |= {step // len(policies): value for step, value in scalars(path).items()}
    return found


def scalars(path: Path) -> dict[int, float]:
    """A curve by step."""
    return {int(step): float(value) for step, value in (r.split(",") for r in path.open())}


def scores_at(curve: Curves, step: int) -> dict[int, float]:
    """Of each seed the mean of its last three evaluations up to a step, if it came that far."""
    found = {}
    for seed, own in sorted(curve.items()):
        steps = sorted(s for s in own if s <= step)
        if steps and steps[-1] > step - 5000:
            found[seed] = float(np.mean([own[s] for s in steps[-3:]]))
    return found


def actions(names: list[str]) -> None:
    """Print what the last networks earn with each way to act, of 20 episodes and each seed."""
    from torchrl_stein.runs import evaluate, load_loss

    print("| run | way to act | return, by seed | mean |\n|---|---|---|---|")
    for name in names:
        folder = folders(*name.split("/"))[-1]
        alone = sorted(path.parent for path in folder.glob("seed*/checkpoints"))
        ways: dict[str, list[float]] = {}
        for path in alone or [folder]:
            loss, settings = load_loss(str(path))
            choosing = {"qvalue": loss.qvalue} if hasattr(loss, "qvalue") else {}
            for way, deterministic in (("sampled", False), ("mean", True)):
                best_of = 0 if deterministic else 16
                rule = settings.eval.model_copy(
                    update={"deterministic": deterministic, "best_of": best_of}
                )
                found, _ = evaluate(
                    loss.actor_network,
                    settings.model_copy(update={"eval": rule}),
                    episodes=20,
                    seed=0,
                    **choosing,
                )
                for metric, label in (("return", way), ("return_best_of_k", "best of 16 by Q")):
                    returns = [own[metric] for own in found if metric in own]
                    ways[label] = ways.get(label, []) + returns
        for label, returns in ways.items():
            if returns:
                each = ", ".join(map(number, returns))
                print(f"| {name} | {label} | {each} | {number(float(np.mean(returns)))} |")


def picture(names: list[str]) -> None:
    """Draw ways through a maze with the last networks of the first seed."""
    from torchrl_stein.runs import evaluate, load_loss
    from torchrl_stein.runs.pictures import draw_goal_maze
    from torchrl_stein.runs.tasks import goal_maze_of

    for name in names:
        loss, settings = load_loss(str(folders(*name.split("/"))[-1]))
        _, played = evaluate(loss.actor_network, settings, episodes=80, seed=0)
        maze = goal_maze_of(settings.env)
        assert maze is not None, name
        path = ROOT / "docs" / "pictures" / f"{name.replace('/', '_')}.png"
        draw_goal_maze(path, maze, played.row(0) if settings.leading else played)
        print(f"Picture: {path}")


def commits_of(folder: Path) -> list[str]:
    """Of the code that began the runs of a folder."""
    known = sorted(folder.rglob("provenance.json"), key=lambda path: len(path.parts))
    return [str(json.loads(path.read_text())["git"]["commit"])[:7] for path in known]


class Found(NamedTuple):
    """What is known of a method."""

    commits: list[str]
    curves: dict[str, Curves]

    def size(self) -> int:
        """So many evaluations."""
        return sum(map(len, self.curves.get("return", {}).values()))


def find(task: str, method: str) -> Found:
    """From the runs that are there."""
    paths = folders(task, method)
    commits = dict.fromkeys(commit for path in paths for commit in commits_of(path))
    return Found(list(commits), curves(task, method))


def committed() -> dict[str, dict[str, Found]]:
    """What was reported before, perhaps on another machine."""
    path = RESULTS / "small_budgets.json"
    known: dict[str, dict[str, Found]] = {}
    for task, methods in json.loads(path.read_text()).items() if path.exists() else ():
        for name, own in methods.items():
            by_metric = {
                metric: {int(k): {int(s): v for s, v in c.items()} for k, c in seeds.items()}
                for metric, seeds in own["curves"].items()
            }
            known.setdefault(task, {})[name] = Found(own["commits"], by_metric)
    return known


def number(value: float) -> str:
    """Returns without decimals, shares with two."""
    return f"{value:.0f}" if abs(value) >= 20 else f"{value:.2f}"


def cell(scores: list[float]) -> str:
    """Mean and spread of so many seeds; interquartile mean with its interval."""
    if not scores:
        return "-"
    if len(scores) == 1:
        return f"{number(scores[0])}; n = 1"
    ends = stratified_bootstrap(lambda tasks: interquartile_mean(tasks[0]), [scores])
    low, high = (number(float(end)) for end in ends)
    middle = number(float(interquartile_mean(scores)))
    mean, spread = number(float(np.mean(scores))), number(float(np.std(scores, ddof=1)))
    return f"{mean} ± {spread}; {middle} [{low}, {high}]; n = {len(scores)}"


def report() -> None:
    """Write small_budgets.json and small_budgets.md.

    A method's runs that are there replace what was reported of it, once they have come further.
    """
    lines = [
        "# Robots at 100 000 steps, one at 300 000, mazes with several goals",
        "",
        (__doc__ or "").strip(),
        "",
    ]
    lines += [
        "A score is the mean of a seed's last three evaluations. Mean ± standard deviation over "
        "seeds; interquartile mean [95 % bootstrap interval]. Differences are paired by seed. "
        "A dash: no run has come so far.",
        "",
    ]
    before, numbers = committed(), {}
    for task in TASKS:
        own = {}
        for name in methods_of(task):
            both = [before.get(task, {}).get(name, Found([], {})), find(task, name)]
            best = max(both, key=Found.size)
            if best.size():
                own[name] = best
        if own:
            numbers[task] = own
            lines += page_of(task, own)
    if numbers:
        draw(numbers, ROOT / "docs" / "pictures" / "small_budgets.png")
        lines += ["![Learning curves](../../docs/pictures/small_budgets.png)", ""]
    plain = {t: {n: own._asdict() for n, own in known.items()} for t, known in numbers.items()}
    (RESULTS / "small_budgets.json").write_text(json.dumps(plain, indent=1) + "\n")
    (RESULTS / "small_budgets.md").write_text("\n".join(lines))
    print("\n".join(lines))


def page_of(task: str, known: dict[str, Found]) -> list[str]:
    """A table for each metric of a task."""
    lines = []
    commits = ", ".join(f"{name} {' then '.join(own.commits)}" for name, own in known.items())
    metrics = METRICS.get(task, ["return"]) if task in ROBOTS else OF_MAZES
    last = max(s for own in known.values() for c in own.curves["return"].values() for s in c)
    marks = [s for s in (25_000, 50_000, 75_000, 100_000, 200_000, 300_000) if s <= last]
    marks = marks or [last]
    for metric in metrics:
        lines += [
            f"## {task}: {metric}",
            "",
            "| method | " + " | ".join(f"{m // 1000}k" for m in marks) + " |",
        ]
        lines += ["|---" * (len(marks) + 1) + "|"]
        for name, own in known.items():
            scores = [scores_at(own.curves.get(metric, {}), mark) for mark in marks]
            cells = [cell(list(each.values())) for each in scores]
            lines += [f"| {name} | " + " | ".join(cells) + " |"]
            if name != "sac" and "sac" in known:
                base = [scores_at(known["sac"].curves.get(metric, {}), mark) for mark in marks]
                pairs = zip(scores, base, strict=True)
                cells = [cell([a[k] - b[k] for k in a if k in b]) for a, b in pairs]
                lines += [f"| {name} - sac | " + " | ".join(cells) + " |"]
        lines += ["", f"Commits: {commits}.", ""]
    return lines


def draw(numbers: dict[str, dict[str, Found]], path: Path) -> None:
    """The first metric of each task: means over seeds, and from the least to the most."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(numbers), figsize=(4.5 * len(numbers), 3.6), squeeze=False)
    for axis, (task, methods) in zip(axes[0], numbers.items(), strict=True):
        metric = METRICS.get(task, ["return"])[0] if task in ROBOTS else OF_MAZES[0]
        for name, own in methods.items():
            seeds = own.curves.get(metric, {})
            steps = sorted(set.intersection(*map(set, seeds.values())))
            values = np.array([[curve[step] for step in steps] for curve in seeds.values()])
            (line,) = axis.plot(steps, values.mean(0), label=f"{name} (n = {len(values)})")
            ends = values.min(0), values.max(0)
            axis.fill_between(steps, *ends, color=line.get_color(), alpha=0.2, linewidth=0)
        axis.set(title=task.replace("_", " "), xlabel="environment steps", ylabel=metric)
        axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    print(f"Picture: {path}")


def main() -> None:
    """Run methods one after the other, or report what is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["run", "report", "actions", "picture"])
    parser.add_argument("names", nargs="*", help="TASK/METHOD, as hopper/sac")
    given = parser.parse_args()
    known = {f"{task}/{method}" for task in TASKS for method in methods_of(task)}
    unknown = [name for name in given.names if name not in known]
    if unknown:
        parser.error(f"{unknown[0]!r} is not one of {', '.join(sorted(known))}")
    if given.what == "report":
        report()
    elif given.what == "actions":
        actions(given.names)
    elif given.what == "picture":
        picture(given.names)
    else:
        for name in given.names:
            run(name)


if __name__ == "__main__":
    main()
