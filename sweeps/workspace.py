"""Give the project at Weights & Biases a workspace with a section for each question.

    pip install "torchrl_stein[sweeps]"
    python sweeps/workspace.py ENTITY                # project torchrl_stein, or --project NAME

A workspace lies on the server: this needs a network and a login, and is done once for a project.
Offline runs that are synchronised later appear in it.
"""

from __future__ import annotations

import argparse

import wandb_workspaces.reports.v2 as panels
import wandb_workspaces.workspaces as workspaces

STEPS = "trainer/step"
# What is asked, and the metrics that answer it; recipes log those that they have.
QUESTIONS = {
    "Does it learn?": ["eval/return", "eval/success", "eval/length", "train/return"],
    "Does it know several ways?": ["eval/goals_reached", "eval/entropy", "eval/removal_sr5"],
    "How do the particles do?": ["test/return_max", "test/return_mean", "train/particle_distance"],
    "What are the losses?": ["train/loss_qvalue", "train/loss_actor", "train/loss_trust_region"],
    "Do the particles repel each other?": ["train/repulsion_ratio", "train/kernel_bandwidth"],
    "What is a state worth?": ["train/q_value", "train/soft_value", "train/alpha"],
    "How fast is it?": ["time/updates_per_s"],
}


def workspace(entity: str, project: str) -> workspaces.Workspace:
    """One line plot for each metric, over environment steps, and the pictures at the end."""
    sections = [
        workspaces.Section(
            name=question,
            panels=[panels.LinePlot(title=name, x=STEPS, y=[name]) for name in metrics],
            is_open=number < 2,
        )
        for number, (question, metrics) in enumerate(QUESTIONS.items())
    ]
    media = panels.MediaBrowser(
        media_keys=["test/multigoal", "test/goal_maze", "test/kernel", "eval/episode"]
    )
    sections.append(workspaces.Section(name="What does it look like?", panels=[media]))
    return workspaces.Workspace(
        entity=entity, project=project, name="torchrl_stein", sections=sections
    )


def main() -> None:
    """Make it, and print where it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("entity", help="account or team")
    parser.add_argument("--project", default="torchrl_stein")
    given = parser.parse_args()
    print(workspace(given.entity, given.project).save().url)


if __name__ == "__main__":
    main()
