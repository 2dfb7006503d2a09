"""Results page and figures of the SVPG experiments, from the runs of svpg_runs.py.

    python -m benchmarks.experiments.svpg_report --runs runs --figures

Finished runs are merged into benchmarks/results/svpg.json, from which svpg.md beside it and
docs/pictures/svpg_*.png are made; run directories may then go. Only the picture of states needs
checkpoints.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import RESULTS, ROOT
from benchmarks.experiments import svpg_statistics as stats
from benchmarks.experiments.svpg_figures import draw_figures
from benchmarks.experiments.svpg_runs import suites
from benchmarks.experiments.svpg_statistics import Group

MEASURES = ("best", "top4", "mean")
# Table 1 of the paper: best test return (iterations to 95 %: its "episodes", see the notebook).
PUBLISHED = {
    "A2C Cartpole Swing Up": ["308.71 (189)", "419.62 (474)", "436.84 (171)"],
    "A2C Double Pendulum": ["-938.73 (46)", "-256.64 (638)", "-244.85 (199)"],
    "REINFORCE Cartpole Swing Up": ["232.96 (253)", "391.46 (594)", "426.69 (238)"],
    "REINFORCE Double Pendulum": ["-892.31 (446)", "-797.45 (443)", "-319.66 (327)"],
}
PAPER_MODES = ("joint", "independent", "svpg")
TITLES = {
    "table": "The two hard tasks: table 1 of the paper",
    "easy": "The two easy tasks",
    "controls": "Controls: what does the repulsion do?",
    "temperature": "Temperature",
    "ip_wgf": "IP-WGF beside SVPG, with the settings of arXiv:1808.03030",
}
OTHERS = ("independent", "joint", "drift", "shared_drift", "radial")
REFERENCES = {
    "table": ("independent",),
    "easy": (),
    "controls": ("svpg",),
    "temperature": (),
    "ip_wgf": ("svpg", "ip_wgf"),
}
LONGER = {"table_birth_death": "table"}  # the same tasks, with longer runs of other modes
FIGURES = {
    "learning_curves": "Return in training: best particle (line, 95 % band) and mean of the "
    "particles (dashed), averaged to 100 points; axes may cut bands. Figure 1 of the paper.",
    "sorted_returns": "Test returns of all particles at the end, best first: mean over seeds and "
    "95 % intervals; dotted: the one agent of joint. Figure 3.",
    "temperature": "Return in training, by temperature. Figure 4.",
    "ip_wgf": "As the first picture, for IP-WGF and SVPG with the settings of arXiv:1808.03030. "
    "Figure 1 of that paper.",
    "states": "States that the four best policies of one seed visit, and their mean returns, in a "
    "common t-SNE plane (grey: all eight). Figure 2.",
}


def page(content: Mapping, findings: str = "", pictures: Sequence[str] = ()) -> str:
    """The Markdown page."""
    parts = ["# Stein variational policy gradient", findings.strip(), provenance(content)]
    by_suite = stats.runs_by_suite(content["runs"], first=TITLES)
    grouped = {suite: stats.group(runs) for suite, runs in by_suite.items()}
    for suite, groups in grouped.items():
        names = stats.varying(by_suite[suite])
        parts += [f"## {TITLES.get(suite, f'Suite {suite}')}", describe(suite, groups, names)]
        parts += paper_table(groups) if suite == "table" else []
        parts += [overview(groups, names), difference_table(suite, grouped, names)]
        if LONGER.get(suite) in grouped:
            parts.append(table_at_the_end_of_the_shorter(groups, grouped[LONGER[suite]]))
    links = {name: f"../../docs/pictures/svpg_{name}.png" for name in pictures}
    parts += [f"![{name}]({link})\n\n{FIGURES[name]}" for name, link in links.items()]
    return "\n\n".join(part for part in parts if part) + "\n"


def provenance(content: Mapping) -> str:
    """Commands, machine, versions, dates; how to read the numbers."""
    env, days = content["environment"], sorted({run["date"] for run in content["runs"]})
    commands = ""
    for suite, runs in stats.runs_by_suite(content["runs"], first=TITLES).items():
        seeds = " ".join(map(str, sorted({run["seed"] for run in runs})))
        commands += f"$ python -m benchmarks.experiments.svpg_runs {suite} --seeds {seeds}\n"
    versions = ", ".join(f"{name} {env[name]}" for name in ("python", *stats.PACKAGES))
    return (
        f"```console\n{commands}$ python -m benchmarks.experiments.svpg_report --figures\n```\n\n"
        f"{len(content['runs'])} finished runs of {days[0]} to {days[-1]}, gathered {env['date']}: "
        f"{env['machine']}, {env['cores']} CPU cores, one thread per run, {versions}.\n\n"
        "Returns are undiscounted, of test episodes with the mean action. Best, top4 and mean are "
        "over the particles of a run; the best of many profits from selection. In brackets: 95 % "
        "intervals of the mean over seeds, by Student's t, uncorrected for many comparisons; a "
        "single seed has none. Distance: mean between the parameters of two particles at the end. "
        "Minutes: with other runs on the same machine."
    )


def describe(suite: str, groups: Sequence[Group], names: Sequence[str]) -> str:
    """Settings that all runs share, and what is missing."""
    shared = {
        "training.iterations": "{} iterations",
        "population.num_particles": "n = {} particles",
        "population.envs_per_particle": "{} environments each",
        "training.steps": "{} steps of each per iteration",
        "loss.temperature": "alpha = {}",
        "optim.lr": "Adam {}",
        "eval.episodes": "{} test episodes",
        "env_options": "{} of the environment",
    }
    first = groups[0].settings
    lines = [stats.task_name(first)] if not {"env", "base"} & {*names} else []
    common = [name for name in shared if name not in names and first.get(name, "{}") != "{}"]
    lines += [shared[name].format(stats.shown(first[name])) for name in common]
    if "eval.final_episodes" in first:
        lines.append(f"{stats.shown(first['eval.final_episodes'])} at the end from other starts")
    parts, most = [", ".join(lines) + "."], max(len(found.runs) for found in groups)
    rows = zip(groups, stats.labels(groups, names)[1], strict=True)
    short = [f"{' '.join(row)} ({len(g.runs)})" for g, row in rows if len(g.runs) < most]
    if short:
        parts.append(f"**Incomplete**: fewer than {most} seeds for {', '.join(short)}.")
    planned = len(suites().get(suite, ()))
    if len(groups) < planned:
        parts.append(f"**Incomplete**: {len(groups)} of {planned} settings have finished runs.")
    return "\n\n".join(parts)


def paper_table(groups: Sequence[Group]) -> list[str]:
    """Table 1: best test return (iterations to 95 %), by task and mode, beside the paper's."""
    found = {(stats.task_name(g.settings), str(g.settings["mode"])): g for g in groups}
    modes = [*PAPER_MODES, *sorted({mode for _, mode in found} - set(PAPER_MODES))]
    rows = []
    for task in dict.fromkeys(task for task, _ in found):
        here = [table_cell(found.get((task, mode))) for mode in modes]
        rows.append([task, "here", *here])
        published = PUBLISHED.get(task, [])
        rows.append(["", "paper", *published, *[""] * (len(modes) - len(published))])
    every = {run["test"]["iteration"][0] for found in groups for run in found.runs.values()}
    note = (
        "Best test return of any particle at any evaluation; in parentheses the iterations until "
        "the test return of the best particle has gone 95 % of the way from its first value to "
        "its best (returns may be negative; the paper says within 5 % of the maximum). Evaluated "
        f"every {' or '.join(map(str, sorted(every)))} iterations. Mean ± standard deviation."
    )
    return [note, stats.markdown(["task", "", *modes], rows), "At the end of training:"]


def table_cell(found: Group | None) -> str:
    if found is None:
        return "no run"
    curves = [run["test"] for run in found.runs.values()]
    best = stats.spread([max(c["max"]) for c in curves], 1)
    reached = stats.spread([stats.reach(c) for c in curves], 0)
    return f"{best} ({reached}), {len(curves)} seed" + "s" * (len(curves) > 1)


def overview(groups: Sequence[Group], names: Sequence[str]) -> str:
    """Final test returns of every group."""
    heads, cells = stats.labels(groups, names)
    rows = []
    for found, columns in zip(groups, cells, strict=True):
        runs = list(found.runs.values())
        numbers = [str(stats.interval([*found.values(m).values()])) for m in MEASURES]
        reached = stats.spread([stats.reach(run["train"]) for run in runs], 0)
        last = [stats.spread(known(runs, name), 0) for name in ("distance", "minutes")]
        rows.append([*columns, str(len(runs)), *numbers, reached, *last])
    tail = ["seeds", *MEASURES, "iterations to 95 %, in training", "distance", "minutes"]
    return stats.markdown([*heads, *tail], rows)


def known(runs: Sequence[Mapping], name: str) -> list[float]:
    """Of the runs that have it: one particle has no distance, old runs may lack a quantity."""
    return [run[name] for run in runs if run.get(name) is not None]


def difference_table(suite: str, grouped: Mapping[str, list[Group]], names: Sequence[str]) -> str:
    """Differences by seed to the references of a suite; if it has none, to another suite's."""
    heads, cells = stats.labels(grouped[suite], names)
    rows, seen = [], set()
    for found, columns in zip(grouped[suite], cells, strict=True):
        for name in REFERENCES.get(suite, OTHERS):
            at_home = name in [g.settings["mode"] for g in grouped[suite]]
            for other_suite, groups in grouped.items():
                if at_home and other_suite != suite:
                    continue
                where = ("mode", *names) if other_suite == suite else ("mode",)
                other = stats.reference(groups, found, name, where)
                pair = frozenset((id(found), id(other)))
                if other is None or pair in seen or not found.runs.keys() & other.runs.keys():
                    continue
                seen.add(pair)
                numbers = [stats.paired_difference(found, other, m) for m in MEASURES]
                bold = [f"**{d}**" if abs(d.mean) > d.half else str(d) for d in numbers]
                title = stats.method(other, groups)
                title += "" if other_suite == suite else f" ({other_suite})"
                rows.append([*columns, title, str(numbers[0].seeds), *bold])
    note = "Differences to another mode, paired by seed; bold where the 95 % interval excludes 0:"
    table = stats.markdown([*heads, "minus", "pairs", *MEASURES], rows)
    return f"{note}\n\n{table}" if rows else ""


def table_at_the_end_of_the_shorter(groups: Sequence[Group], longer: Sequence[Group]) -> str:
    """Differences to longer runs of other modes, at the last iteration of the shorter ones."""
    iterations = int(str(groups[0].settings["training.iterations"]))
    rows = []
    for found in groups:
        for other in longer:
            if all(found.settings[k] == other.settings[k] for k in ("env", "base", "env_options")):
                pairs = len(found.runs.keys() & other.runs.keys())
                numbers = [
                    stats.difference_at(found, other, iterations, measure)
                    for measure in ("max", "top4", "mean")
                ]
                bold = [f"**{d}**" if abs(d.mean) > d.half else str(d) for d in numbers]
                task = stats.task_name(found.settings)
                rows.append([task, str(other.settings["mode"]), str(pairs), *bold])
    note = (
        f"Test returns in training at iteration {iterations}, minus those of the longer runs of "
        "suite table at that iteration:"
    )
    return f"{note}\n\n{stats.markdown(['task', 'minus', 'pairs', *MEASURES], rows)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, gather, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="holds svpg_<suite>/")
    parser.add_argument("--figures", action="store_true", help="draw docs/pictures/svpg_*.png too")
    parser.add_argument("--results", type=Path, default=RESULTS)
    pictures = ROOT / "docs" / "pictures"
    parser.add_argument("--docs", type=Path, default=pictures, help="where figures go")
    given = parser.parse_args(arguments)
    results = given.results / "svpg.json"
    try:
        content = stats.gather(given.runs, results)
    except FileNotFoundError as error:
        sys.exit(str(error))
    stats.write(content, results)
    if given.figures:
        draw_figures(content["runs"], given.runs, given.docs)
    findings = given.results / "svpg_findings.md"
    text = findings.read_text() if findings.exists() else ""
    pictures = [name for name in FIGURES if (given.docs / f"svpg_{name}.png").exists()]
    results.with_suffix(".md").write_text(page(content, text, pictures))
    print(f"{len(content['runs'])} runs: {results.with_suffix('.md')}")


if __name__ == "__main__":
    main()
