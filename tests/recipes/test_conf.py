"""The configurations of the recipes."""

from pathlib import Path

import pytest

from torchrl_stein.training import OffPolicySettings, OnPolicySettings

pytest.importorskip("hydra")

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

RECIPES = Path(__file__).parents[2] / "recipes"
SHARED = {"off_policy"}  # what others build on; not a recipe by itself
OFF_POLICY = ("ddpg", "dp_wgf_v", "sac", "soft_q")
REGRESSION = {"bnn_regression"}  # no environment, no discount
SETTINGS = {"ip_wgf": "svpg"}  # other settings of a recipe, by --config-name
TASKS = sorted(path.stem for path in (RECIPES / "conf" / "task").glob("*.yaml"))
NAMES = sorted(path.stem for path in (RECIPES / "conf").glob("*.yaml"))


def config_of(name, *overrides):
    with initialize_config_dir(str(RECIPES / "conf"), version_base="1.3"):
        return OmegaConf.to_container(compose(name, list(overrides)), resolve=True)


def test_every_recipe_has_one_of_its_name():
    scripts = {p.stem for p in RECIPES.glob("*.py") if "@hydra.main" in p.read_text()}
    assert set(NAMES) - SHARED - set(SETTINGS) == scripts
    assert len(NAMES) >= 3


@pytest.mark.parametrize("name", sorted(set(NAMES) - SHARED))
def test_it_composes(name):
    config, recipe = config_of(name), SETTINGS.get(name, name)
    assert config["logger"] == "csv"
    assert config["recipe"] == recipe
    assert config["run_dir"].startswith(f"runs/{recipe}/")
    assert config["run_dir"].endswith("_seed0")


@pytest.mark.parametrize("name", OFF_POLICY)
@pytest.mark.parametrize("task", TASKS)
def test_length_of_an_off_policy_run(name, task):
    config = config_of(name, f"task={task}")
    settings = OffPolicySettings(**config["training"])
    length = {"multigoal": 2500, "swimmer": 99_000}
    assert settings.updates(config["env"]["num_envs"]) == length[task]
    # a task's settings win over a recipe's, and one of the target updates is chosen
    optim, temperature = config["optim"], config["loss"]["temperature"]
    assert temperature == {"multigoal": 10.0, "swimmer": 0.01}[task]
    assert (optim["target_tau"] is None) != (optim["target_update_interval"] is None)


def test_settings_of_ip_wgf():
    """Table 4 of the paper, whose caption says direct policy learning."""
    config = config_of("ip_wgf")
    assert (config["mode"], config["trust_region"]["weight"]) == ("ip_wgf", 0.4)
    population = config["population"]
    assert (population["num_particles"], population["num_cells"]) == (16, [25, 16])
    assert population["envs_per_particle"] * config["training"]["steps"] == 5000
    assert config["loss"]["kernel"]["bandwidth"]["denominator"] == "log(n)"
    assert config["loss"]["temperature"] in {6, 7, 8, 9, 10, 11}
    assert (config["optim"]["lr"], config["loss"]["gamma"]) == (5e-3, 0.99)


def test_settings_of_the_paper():
    config = config_of("svpg")
    training = config["training"]
    intervals = {key: value for key, value in training.items() if key.endswith("_interval")}
    assert OnPolicySettings(training["iterations"], **intervals).iterations == 1000
    population = config["population"]
    assert (population["num_particles"], config["loss"]["temperature"]) == (16, 10.0)
    assert population["num_cells"] == [100, 50, 25]
    assert population["envs_per_particle"] * training["steps"] == 5000


@pytest.mark.parametrize("name", sorted(set(NAMES) - SHARED - REGRESSION))
def test_the_command_line_reaches_everything(name):
    changes = {"seed": 7, "loss.gamma": 0.5, "training.log_interval": 3, "eval.max_steps": 9}
    config = config_of(name, *(f"{key}={value}" for key, value in changes.items()))
    assert config["run_dir"].endswith("_seed7")
    for key, value in changes.items():
        part = config
        for word in key.split("."):
            part = part[word]
        assert part == value


def test_the_directory_of_a_population_says_what_it_is():
    config = config_of("svpg", "env=cartpole", "base=ppo", "mode=joint", "seed=3")
    assert config["run_dir"].endswith("_cartpole_ppo_joint_seed3")
