"""The configurations of the recipes."""

import math

import pytest
from torchrl.envs.utils import RandomPolicy

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from tests.recipes.loops import load, settings_of, values_of
from tests.recipes.processes import RECIPES, ROOT
from torchrl_stein.envs.goal_maze import GOAL_REWARD
from torchrl_stein.runs import make_configured_task, make_task, play_episodes
from torchrl_stein.runs.evaluation import episode_metrics
from torchrl_stein.runs.settings import WORLDS

CONF = ROOT / "recipes" / "conf"
SHARED = {"off_policy", "on_policy"}  # what others build on; not a recipe by itself
OFF_POLICY = ("ddpg", "s2ac", "sac", "soft_q", "soft_qv", "td3")
SETTINGS = {
    "a2c_pendulum": "a2c",
    "a2c_robot": "a2c",
    "acer_pendulum": "acer",
    "ip_wgf": "svpg",
    "joint": "svpg",
    "ppo_pendulum": "ppo",
    "ppo_robot": "ppo",
}  # of a recipe, by --config-name
GROUPS = {
    name: sorted(path.stem for path in (CONF / name).glob("*.yaml"))
    for name in ("base", "compile", "critics", "kernel", "ppo_loss", "selection", "soft_q_task")
}
for name in ("task", "trust_region"):
    GROUPS[name] = sorted(path.stem for path in (CONF / name).glob("*.yaml"))
PAPER = sorted(f"paper/{path.stem}" for path in (CONF / "task" / "paper").glob("*.yaml"))
TASKS = sorted({*GROUPS["task"], *PAPER} - {"robot", "paper/robot"})  # which others build on
GYMNASIUM = {"ant", "halfcheetah", "hopper", "humanoid", "walker2d", "torchrl_ant"}
KINDS = {"ant_maze", "goal_maze_simple", "multigoal", "multigoal_x", "swimmer"}
KINDS |= {"swimmer_finish_line", "torchrl_ant"}
MAZE_FRAMES = {"goal_maze_simple": 100, "goal_maze_medium": 200, "goal_maze_hard": 300}  # thousands
# Of the paper's authors' code (swimmer: Zhang et al. 2018); the temperature is 1 after it. The
# paper's value for its own robots is 0.1.
REWARD_SCALES = {"halfcheetah": 30, "hopper": 30, "walker2d": 10, "humanoid": 100, "ant": 300}
REWARD_SCALES = {f"paper/{task}": scale for task, scale in REWARD_SCALES.items()} | {"swimmer": 100}
ROBOTS = [task for task in TASKS if task.startswith(("ant_", "swimmer_"))]
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))


def test_every_recipe_has_one_of_its_name():
    assert set(NAMES) - SHARED - set(SETTINGS) == set(RECIPES)
    assert {path.name for path in CONF.iterdir() if path.is_dir()} == set(GROUPS)


@pytest.mark.parametrize("config", sorted(set(NAMES) - SHARED))
def test_it_composes_to_what_the_recipe_takes(config):
    recipe = SETTINGS.get(config, config)
    given = ["runs=[runs/x]"] if config == "compose" else []
    settings = settings_of(recipe, *given, "seed=7", "training.log_interval=3", config=config)
    assert (settings.recipe, settings.logger, settings.run_dir) == (recipe, "csv", None)
    assert (settings.seed, settings.training.log_interval) == (7, 3)
    # What is written into the directory of a run is read again.
    assert type(settings).parse(settings.plain()) == settings


def test_every_choice_of_every_group_composes():
    """The groups of populations; tasks are below."""
    assert len(GROUPS["kernel"]) == 8
    for kernel in GROUPS["kernel"]:
        assert "_target_" in values_of("trpo", f"kernel={kernel}")["kernel"]
        assert "_target_" in values_of("sharded_svpg", f"kernel={kernel}")["kernel"]
    for loss in GROUPS["ppo_loss"]:
        assert settings_of("ppo", f"ppo_loss={loss}").loss.name == loss
    for base in GROUPS["base"]:
        for selection in GROUPS["selection"]:
            settings = settings_of("svpg", f"base={base}", f"selection={selection}")
            assert settings.base.name == base
            assert (settings.selection is None) == (selection == "none")
    for region in GROUPS["trust_region"]:
        settings = settings_of("svpg", f"trust_region={region}", "selection=none")
        assert (settings.trust_region is None) == (region == "none")


def test_what_a_task_has_for_soft_q_learning_alone():
    assert set(GROUPS["soft_q_task"]) <= set(TASKS)  # a file of another name would not be read
    for task in GROUPS["soft_q_task"]:
        loss = settings_of("soft_q", f"task={task}").loss
        assert (loss.value_target, loss.temperature) == ("mellowmax", 10.0)
        assert settings_of("soft_q", f"task={task}", "loss.temperature=3").loss.temperature == 3.0
        assert settings_of("soft_qv", f"task={task}").loss.temperature == 0.1


def test_discrete_tasks():
    found = sorted(path.stem for path in (CONF / "task" / "discrete").glob("*.yaml"))
    assert found == ["cartpole", "grid_world"]
    for task in found:
        settings = settings_of("discrete_soft_q", f"task=discrete/{task}")
        env = make_configured_task(settings.env, (2, 3), seed=0)
        data = env.rollout(2, break_when_any_done=False)
        assert (data["action"].sum(-1) == 1).all()
        assert data["action"].shape[:3] == (2, 3, 2)
        env.close()


@pytest.mark.parametrize("name", ["sac", "soft_q"])
def test_critics_of_crossq(name):
    plain, crossq = (
        settings_of(name, "task=hopper", f"critics={critics}") for critics in ("plain", "crossq")
    )
    assert plain == settings_of(name, "task=hopper")
    changed = {
        f"{section}.{key}": value
        for section in ("network", "loss", "optim")
        for key, value in getattr(crossq, section).model_dump().items()
        if value != getattr(plain, section).model_dump()[key]
    }
    rates = dict.fromkeys(["optim.lr_qvalue", "optim.lr_actor", "optim.lr_alpha"], 1e-3)
    loss = {"loss.actor_interval": 3, "loss.num_value_samples": 1}
    assert changed == {"network.norm": "batch_renorm", "optim.beta1": 0.5, **loss, **rates}


def test_worlds_are_known_without_torch():
    """Settings are checked before torch is imported."""
    for name in WORLDS:
        assert make_task(name, (2,), seed=0).batch_size == (2,)
    kinds = load("svpg").make_task.__globals__["_WORLDS"]
    assert set(kinds) == set(WORLDS)


def test_every_setting_of_a_task_is_one_of_the_kinds():
    def paths(values, prefix=""):
        for name, value in values.items():
            yield prefix + name
            if isinstance(value, dict):
                yield from paths(value, f"{prefix}{name}.")

    known = set()
    for task in KINDS:
        known |= set(paths(values_of("soft_q", f"task={task}")))
    for task in TASKS:
        assert set(paths(values_of("soft_q", f"task={task}"))) <= known, task


@pytest.mark.parametrize("task", TASKS)
def test_a_task_with_every_off_policy_recipe(task):
    """A task's settings win over a recipe's, and one of the target updates is chosen."""
    # Two that take different settings, and all where a task names settings that others do not.
    for name in OFF_POLICY if task in KINDS else ("soft_q", "td3"):
        settings = settings_of(name, f"task={task}")
        assert type(settings).parse(settings.plain()) == settings
        updates, training, loss = settings.num_updates, settings.training, settings.loss
        if task.startswith("multigoal"):
            assert (updates, loss.temperature) == (2500, 10.0)
        elif task in MAZE_FRAMES:
            check_settings_of_mazes(settings, 1000 * MAZE_FRAMES[task])
        else:
            warmup = {"swimmer": 1000}.get(task, 5000 if task in GYMNASIUM else 10_000)
            assert updates == training.total_frames - warmup
            assert training.total_frames == (100_000 if task == "swimmer" else 1_000_000)
            assert training.reward_scale == REWARD_SCALES.get(task, 1.0)
            scaled = 1.0 if task in REWARD_SCALES else 0.1
            assert loss.temperature * training.reward_scale == pytest.approx(scaled, rel=1e-5)
        if name in ("ddpg", "soft_q") and task in GYMNASIUM:
            check_settings_of_today(settings)
        if name in ("ddpg", "soft_q") and task in ROBOTS:
            check_settings_of_soft_q_learning(settings)
        if name == "td3":  # keeps its own noise and targets
            noise = settings.exploration.model_dump()
            assert noise.pop("noise") == 0.1
            assert not any(noise.values())
            assert settings.optim.target_tau == 0.005
            assert loss.actor_interval == 2


@pytest.mark.parametrize("task", sorted(KINDS | {"hopper"}))
def test_d4pg_keeps_its_own_in_every_task(task):
    """Noise, targets and the unit of rewards, of which its atoms are."""
    settings = settings_of("d4pg", f"task={task}")
    assert type(settings).parse(settings.plain()) == settings
    noise, optim = settings.exploration, settings.optim
    assert (noise.noise, noise.theta, noise.uniform_fraction) == (0.3, None, 0.0)
    assert (optim.target_update_interval, optim.target_tau) == (100, None)
    loss = settings.loss
    assert (settings.training.reward_scale, loss.v_min, loss.v_max) == ("auto", -5.0, 5.0)


def check_settings_of_today(settings):
    """Those of SAC (Haarnoja et al. 2018, arXiv:1812.05905, table 1), for every algorithm."""
    training, optim = settings.training, settings.optim
    assert (optim.lr_qvalue, optim.lr_actor, optim.target_tau) == (3e-4, 3e-4, 0.005)
    assert (settings.network.num_cells, training.batch_size) == ([256, 256], 256)
    assert (training.reward_scale, training.updates_per_step) == (1.0, 1)
    assert settings.eval.max_steps == 1000


def check_settings_of_mazes(settings, frames):
    """The budgets of Wang et al. 2025, a target that moves in every update, episodes of the map."""
    assert (settings.training.total_frames, settings.num_updates) == (frames, frames - 5000)
    assert (settings.training.batch_size, settings.optim.target_tau) == (128, 0.005)
    assert settings.training.buffer_size >= frames
    world = make_task(settings.env.name, (1,), seed=0)
    assert settings.eval.max_steps == world.horizon
    assert min(settings.eval.episodes, settings.eval.final_episodes) >= 50  # ten groups of five
    if getattr(settings.loss, "value_target", None) == "mellowmax":  # without worth of staying
        assert settings.loss.temperature <= GOAL_REWARD / 10
    elif hasattr(settings.loss, "temperature"):  # else policies learn to avoid the goals
        entropy_of_staying = settings.loss.temperature * math.log(4) / (1 - settings.loss.gamma)
        assert entropy_of_staying < GOAL_REWARD / 2


def check_settings_of_soft_q_learning(settings):
    """Appendix D.1 of Haarnoja et al. 2017, for both algorithms."""
    training, optim, loss = settings.training, settings.optim, settings.loss
    assert (optim.lr_qvalue, optim.lr_actor) == (1e-3, 1e-4)
    assert optim.target_update_interval == (5000 if "swimmer" in settings.env.name else 1000)
    assert (training.batch_size, training.buffer_size) == (64, 1_000_000)
    assert (training.warmup_frames, training.updates_per_step) == (10_000, 1)
    assert settings.network.num_cells == [200, 200]
    noise = settings.exploration
    assert (noise.theta, noise.noise, noise.uniform_fraction) == (0.15, 0.3, 0)
    assert (loss.temperature, loss.gamma, loss.num_value_samples) == (0.1, 0.99, 50)
    assert settings.eval.max_steps == 500
    if settings.recipe == "soft_q":
        assert loss.num_action_samples == 32


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


def test_settings_of_ip_wgf():
    """Table 4 of the paper, whose caption says direct policy learning."""
    settings = settings_of("svpg", config="ip_wgf")
    assert (settings.selection, settings.trust_region.weight) == (None, 0.4)
    population = settings.population
    assert (population.num_particles, population.num_cells) == (16, [25, 16])
    assert population.envs_per_particle * settings.training.steps == 5000
    assert settings.kernel["bandwidth"]["denominator"] == "log(n)"
    assert settings.loss.temperature in {6, 7, 8, 9, 10, 11}
    assert (settings.optim.lr, settings.loss.gamma) == (5e-3, 0.99)


def test_settings_of_the_paper():
    settings = settings_of("svpg", "selection=none", "base=reinforce")
    assert settings.training.iterations == 1000
    population = settings.population
    assert (population.num_particles, settings.loss.temperature) == (16, 10.0)
    assert population.num_cells == [100, 50, 25]
    assert population.envs_per_particle * settings.training.steps == 5000
