"""Search settings of soft Q-learning with Optuna: no account, no server, stop and go on.

    python sweeps/optuna_soft_q.py --trials 30
    python sweeps/optuna_soft_q.py --trials 60            # 30 more; also after Ctrl-C
    python sweeps/optuna_soft_q.py --trials 30 --metric return -- task=swimmer seed=1

Every trial is a run of recipes/soft_q.py in a process of its own, in runs/optuna/STUDY/trial_NNNN.
The study is an SQLite file beside them; start the script several times to have several trials at a
time. What follows ``--`` are settings of the recipe that all trials share.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import optuna

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "soft_q.py"
INTERRUPTED = 130  # exit code of a recipe after Ctrl-C


def suggest(trial: optuna.Trial) -> dict[str, float]:
    """The settings of one trial."""
    return {
        "loss.temperature": trial.suggest_float("loss.temperature", 1.0, 100.0, log=True),
        "loss.num_action_samples": trial.suggest_categorical(
            "loss.num_action_samples", [8, 16, 32, 64]
        ),
        "optim.lr_qvalue": trial.suggest_float("optim.lr_qvalue", 3e-4, 1e-2, log=True),
        "optim.lr_actor": trial.suggest_float("optim.lr_actor", 3e-4, 1e-2, log=True),
    }


def run_recipe(directory: Path, overrides: Sequence[str]) -> dict[str, float]:
    """Run the recipe to its end; what it reached."""
    process = subprocess.run([sys.executable, RECIPE, f"run_dir={directory}", *overrides])
    if process.returncode == INTERRUPTED:
        raise KeyboardInterrupt
    process.check_returncode()
    return json.loads((directory / "summary.json").read_text())


def search(
    study_name: str, trials: int, metric: str, overrides: Sequence[str], folder: Path
) -> optuna.Study:
    """Go on with a study until it has so many complete trials."""
    folder = folder / study_name
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=study_name,
        storage=f"sqlite:///{folder / 'study.db'}",
        direction="maximize",
        load_if_exists=True,
    )

    def objective(trial: optuna.Trial) -> float:
        settings = [f"{name}={value}" for name, value in suggest(trial).items()]
        summary = run_recipe(folder / f"trial_{trial.number:04}", [*settings, *overrides])
        trial.set_user_attr("summary", summary)
        return summary[metric]

    enough = optuna.study.MaxTrialsCallback(trials, states=(optuna.trial.TrialState.COMPLETE,))
    done = len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)))
    # A run whose losses are no numbers any more fails; the search goes on, but not for ever.
    if done < trials:
        study.optimize(
            objective,
            n_trials=2 * (trials - done),
            callbacks=[enough],
            catch=(subprocess.CalledProcessError,),
        )
    return study


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=20, help="complete ones in all; default 20")
    parser.add_argument(
        "--metric",
        default="entropy",
        help="of summary.json, to maximize; default: entropy, how evenly the goals are reached "
        "(the return alone prefers cold policies that know one goal)",
    )
    parser.add_argument("--study", default="soft_q", help="its name; default: soft_q")
    parser.add_argument("--folder", type=Path, default=Path("runs/optuna"))
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="for all trials")
    given = parser.parse_args()
    try:
        study = search(given.study, given.trials, given.metric, given.overrides, given.folder)
    except KeyboardInterrupt:
        sys.exit(f"Stopped. To go on: the same command; study {given.study} in {given.folder}")
    if not study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
        sys.exit("optuna_soft_q.py: no trial was complete, see the messages above")
    print(f"Best of {len(study.trials)} trials: {given.metric} {study.best_value:.4g}")
    print("python recipes/soft_q.py", *(f"{k}={v:.4g}" for k, v in study.best_params.items()))


if __name__ == "__main__":
    main()
