"""Small runs of recipes, as experiments find them."""

import pytest


def train(recipe, directory, *words, config=None):
    from benchmarks.recipes import load_recipe, settings_of

    settings = settings_of(
        recipe, *words, f"run_dir={directory}", "eval.video_steps=0", config=config
    )
    load_recipe(recipe).main(settings)
    return directory


@pytest.fixture(scope="session")
def robot_run(tmp_path_factory):
    """The directory of a run of soft Q-learning on a robot, two evaluations long."""
    words = ["task=swimmer_finish_line", "env.num_envs=2", "training.total_frames=48"]
    words += ["training.warmup_frames=8", "training.batch_size=8", "training.log_interval=5"]
    words += ["training.eval_interval=10", "eval.episodes=2", "eval.final_episodes=2"]
    words += ["eval.max_steps=7", "network.num_cells=[8]", "loss.num_action_samples=3"]
    return train("soft_q", tmp_path_factory.mktemp("robots") / "run", *words)


@pytest.fixture(scope="session")
def population_run(tmp_path_factory):
    """The directory of a run of a population: birth and death, with a placebo."""
    words = ["kernel=drift", "population.num_particles=4", "population.num_cells=[8]", "seed=3"]
    words += ["population.envs_per_particle=2", "training.steps=20", "training.iterations=6"]
    words += ["training.eval_interval=3", "eval.episodes=2", "eval.final_episodes=3"]
    words += ["eval.max_steps=20", "base=reinforce"]
    directory = tmp_path_factory.mktemp("runs") / "svpg_controls" / "drift-seed3"
    return train("svpg", directory, *words)
