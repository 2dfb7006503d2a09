"""The configurations of the recipes."""

import importlib.util
from pathlib import Path

import pytest
from torchrl.envs.utils import RandomPolicy

from torchrl_stein.runs import (
    episode_metrics,
    make_configured_task,
    play_episodes,
    sum_of_worlds,
)

pytest.importorskip("hydra")

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

RECIPES = Path(__file__).parents[2] / "recipes"
SHARED = {"off_policy"}  # what others build on; not a recipe by itself
OFF_POLICY = ("ddpg", "sac", "soft_q", "soft_qv", "td3")
WITHOUT_LOSS = {"bnn_regression", "compose"}  # no discount of their own
SETTINGS = {"ip_wgf": "svpg", "joint": "svpg"}  # of a recipe, by --config-name
TASKS = sorted({p.stem for p in (RECIPES / "conf" / "task").glob("*.yaml")} - {"mujoco"})
# Of the paper's authors' code (swimmer: Zhang et al. 2018); the temperature is 1 after it. The
# paper's value for its own robots is 0.1.
REWARD_SCALES = {"halfcheetah": 30, "hopper": 30, "walker2d": 10, "humanoid": 100, "swimmer": 100}
REWARD_SCALES |= {"ant": 300, "torchrl_ant": 300}
ROBOTS = [task for task in TASKS if task.startswith(("ant_", "swimmer_"))]
NAMES = sorted(path.stem for path in (RECIPES / "conf").glob("*.yaml"))


def config_of(name, *overrides):
    with initialize_config_dir(str(RECIPES / "conf"), version_base="1.3"):
        return OmegaConf.to_container(compose(name, list(overrides)), resolve=True)


def settings_of(name, *overrides):
    """Checked by the recipe's own types."""
    spec = importlib.util.spec_from_file_location(f"{name}_recipe", RECIPES / f"{name}.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    return recipe.Settings.parse(config_of(name, *overrides))


def test_every_recipe_has_one_of_its_name():
    scripts = {p.stem for p in RECIPES.glob("*.py") if "@hydra.main" in p.read_text()}
    assert set(NAMES) - SHARED - set(SETTINGS) == scripts
    assert len(NAMES) >= 3


@pytest.mark.parametrize("name", sorted(set(NAMES) - SHARED))
def test_it_composes(name):
    config, recipe = config_of(name), SETTINGS.get(name, name)
    assert config["logger"] == "csv"
    assert config["recipe"] == recipe
    assert config["run_dir"] is None


@pytest.mark.parametrize("name", OFF_POLICY)
@pytest.mark.parametrize("task", TASKS)
def test_length_of_an_off_policy_run(name, task):
    settings = settings_of(name, f"task={task}")
    updates, reward_scale = settings.num_updates, settings.training.reward_scale
    # a task's settings win over a recipe's, and one of the target updates is chosen
    optim, temperature = settings.optim, settings.loss.temperature
    if task.startswith("multigoal"):
        assert (updates, temperature) == (2500, 10.0)
    else:
        assert updates == (99_000 if task == "swimmer" else 990_000)
        assert reward_scale == REWARD_SCALES.get(task, 1.0)
        scaled = 1.0 if task in REWARD_SCALES else 0.1
        assert temperature * reward_scale == pytest.approx(scaled, rel=1e-5)
    assert (optim.target_tau is None) != (optim.target_update_interval is None)


@pytest.mark.parametrize("name", ["ddpg", "soft_q"])
@pytest.mark.parametrize("task", ROBOTS)
def test_settings_of_soft_q_learning(name, task):
    """Appendix D.1 of Haarnoja et al. 2017, for both algorithms."""
    config = config_of(name, f"task={task}")
    training, optim, loss = config["training"], config["optim"], config["loss"]
    assert (optim["lr_qvalue"], optim["lr_actor"]) == (1e-3, 1e-4)
    assert optim["target_update_interval"] == (5000 if "swimmer" in task else 1000)
    assert (training["batch_size"], training["buffer_size"]) == (64, 1_000_000)
    assert (training["warmup_frames"], training["updates_per_step"]) == (10_000, 1)
    assert config["network"]["num_cells"] == [200, 200]
    assert (config["exploration"]["theta"], config["exploration"]["noise"]) == (0.15, 0.3)
    assert config["exploration"]["uniform_fraction"] == 0
    assert (loss["temperature"], loss["gamma"], loss["num_value_samples"]) == (0.1, 0.99, 50)
    assert config["eval"]["max_steps"] == 500
    if name == "soft_q":
        assert loss["num_particles"] == 32


@pytest.mark.parametrize("task", TASKS)
def test_td3_keeps_its_own_noise_and_targets(task):
    config = config_of("td3", f"task={task}")
    assert config["exploration"] == {"noise": 0.1, "theta": None, "uniform_fraction": 0.0}
    assert config["optim"]["target_tau"] == 0.005
    assert config["loss"]["actor_interval"] == 2


@pytest.mark.parametrize("task", TASKS)
def test_every_task_can_be_made(task):
    """Its name and options, what it records, and what counts as success there."""
    settings = settings_of("soft_q", f"task={task}")
    env = make_configured_task(settings.env, 1, seed=0)
    episodes = play_episodes(env, RandomPolicy(env.action_spec), max_steps=2)
    env.close()
    metrics = episode_metrics(episodes, settings.env.info, settings.eval.success)
    if task in ("ant_maze", "swimmer_finish_line"):
        assert metrics["success"] == 0.0
    assert ("centre_of_mass" in settings.env.info) == (task in ROBOTS)


def test_the_parts_of_a_composition_add_up():
    x, y, xy = (
        config_of("soft_q", f"task=multigoal_{part}")["env"]["options"] for part in ("x", "y", "xy")
    )
    total = sum_of_worlds([x, y])
    assert {name: total[name] for name in xy if name in total} == {
        name: value for name, value in xy.items() if name != "init_sigma"
    }


def test_settings_of_ip_wgf():
    """Table 4 of the paper, whose caption says direct policy learning."""
    config = config_of("ip_wgf")
    assert (config["selection"], config["trust_region"]["weight"]) == (None, 0.4)
    population = config["population"]
    assert (population["num_particles"], population["num_cells"]) == (16, [25, 16])
    assert population["envs_per_particle"] * config["training"]["steps"] == 5000
    assert config["kernel"]["bandwidth"]["denominator"] == "log(n)"
    assert config["loss"]["temperature"] in {6, 7, 8, 9, 10, 11}
    assert (config["optim"]["lr"], config["loss"]["gamma"]) == (5e-3, 0.99)


def test_settings_of_the_paper():
    config = config_of("svpg")
    training = config["training"]
    assert training["iterations"] == 1000
    population = config["population"]
    assert (population["num_particles"], config["loss"]["temperature"]) == (16, 10.0)
    assert population["num_cells"] == [100, 50, 25]
    assert population["envs_per_particle"] * training["steps"] == 5000


@pytest.mark.parametrize("name", sorted(set(NAMES) - SHARED - WITHOUT_LOSS))
def test_the_command_line_reaches_everything(name):
    changes = {"seed": 7, "loss.gamma": 0.5, "training.log_interval": 3, "eval.max_steps": 9}
    config = config_of(name, *(f"{key}={value}" for key, value in changes.items()))
    for key, value in changes.items():
        part = config
        for word in key.split("."):
            part = part[word]
        assert part == value
