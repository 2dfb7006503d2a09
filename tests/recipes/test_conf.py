"""The configurations of the recipes."""

from pathlib import Path

import pytest

from torchrl_stein.training import OffPolicySettings, OnPolicySettings

pytest.importorskip("hydra")

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

RECIPES = Path(__file__).parents[2] / "recipes"
SHARED = {"off_policy"}  # what others build on; not a recipe by itself
ON_POLICY = {"svpg"}
NAMES = sorted(path.stem for path in (RECIPES / "conf").glob("*.yaml"))


def config_of(name, *overrides):
    with initialize_config_dir(str(RECIPES / "conf"), version_base="1.3"):
        return OmegaConf.to_container(compose(name, list(overrides)), resolve=True)


def test_every_recipe_has_one_of_its_name():
    scripts = {p.stem for p in RECIPES.glob("*.py") if "@hydra.main" in p.read_text()}
    assert set(NAMES) - SHARED == scripts
    assert len(NAMES) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_it_composes(name):
    config = config_of(name, *(["+recipe=none"] if name in SHARED else []))
    assert config["logger"] == "csv"
    if name not in SHARED:
        assert config["recipe"] == name
        assert config["run_dir"].startswith(f"runs/{name}/")
        assert config["run_dir"].endswith("_seed0")


@pytest.mark.parametrize("name", sorted(set(NAMES) - ON_POLICY))
def test_length_of_an_off_policy_run(name):
    config = config_of(name, *(["+recipe=none"] if name in SHARED else []))
    settings = OffPolicySettings(**config["training"])
    assert settings.updates(config["env"]["num_envs"]) == 2500


@pytest.mark.parametrize("name", sorted(ON_POLICY))
def test_settings_of_the_paper(name):
    config = config_of(name)
    training = config["training"]
    intervals = {key: value for key, value in training.items() if key.endswith("_interval")}
    assert OnPolicySettings(training["iterations"], **intervals).iterations == 1000
    population = config["population"]
    assert (population["num_particles"], config["loss"]["temperature"]) == (16, 10.0)
    assert population["num_cells"] == [100, 50, 25]
    assert population["envs_per_particle"] * training["steps"] == 5000


@pytest.mark.parametrize("name", sorted(set(NAMES) - SHARED))
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
