"""Every setting of every recipe: what is wrong is refused in one line that names it."""

import copy
import math
import re

import pytest
from omegaconf import OmegaConf

from tests.runs.conftest import CONF, RECIPES, _composed
from torchrl_stein.runs.command_line import compose_settings
from torchrl_stein.runs.settings import SettingsError

HUGE = 10**30
# Kinds of settings, and values that none of them takes.
COUNT = [0, -1, 1.5, math.nan, math.inf, HUGE, "x", "", "1", [], [1], {}, None, True]
INDEX = [v for v in COUNT if v != 0 or isinstance(v, bool)]
POSITIVE = [0, 0.0, -1.0, math.nan, math.inf, -math.inf, 1e300, HUGE, "x", "", [], {}, None, True]
NONNEGATIVE = [v for v in POSITIVE if not (isinstance(v, int | float) and v == 0)]
NUMBER = [v for v in NONNEGATIVE if v != -1.0]
FRACTION = [*NONNEGATIVE, 1.01, 2]
RATE = [*POSITIVE, 1.01, 2]
TRUTH = [0, 1, 0.0, "true", "yes", "", [], {}, None, math.nan]
WORD = [0, 1.5, "", [], {}, None, True, math.nan]
CHOICE = [*WORD, "nonsense"]
CELLS = [64, 0, "64", {}, None, True, [0], [-1], [1.5], ["8"], [None], [True], [[8]], [HUGE]]
SECTION = [0, 1.5, "", "x", [], None, True]
TARGET = [*SECTION, {}, {"_target_": None}, {"_target_": 3}, {"_target_": ["a"]}, {"x": 1}]
TARGET += [{"_target_": "os.system", "command": "true"}, {"_target_": ""}, {"_target_": "."}]
OPTIONS = [0, 1.5, "", "x", [], None, True]


def nullable(values):
    return [value for value in values if value is not None]


KINDS = {
    "seed": INDEX,
    "device": [*CHOICE, "gpu9", "cuda:", "cuda:-1", "cuda:x", "CPU", "cpu:0", "mps", "cuda:1:2"],
    "threads": COUNT,
    "logger": CHOICE,
    "recipe": CHOICE,
    "resume": nullable(WORD),
    "run_dir": nullable(WORD),
    "init_from": nullable(WORD),
    "seeds": COUNT,
    "processes": nullable(COUNT),
    "network.num_cells": CELLS,
    "network.norm": nullable(CHOICE),
    "network.normalize": TRUTH,
    "encoder.num_cells": CELLS,
    "encoder.num_features": COUNT,
    "population.num_cells": CELLS,
    "population.num_particles": COUNT,
    "population.envs_per_particle": COUNT,
    "actor.num_particles": COUNT,
    "env": [*WORD, "module:Env-v0"],
    "env_options": OPTIONS,
    "env.name": [*WORD, "module:Env-v0"],
    "env.num_envs": COUNT,
    "env.options": OPTIONS,
    "env.info": ["x", 0, None, {}, [1], [None], [""], True],
    "env._target_": [*nullable(WORD), "os.system", "torchrl.envs.GymEnv", "torchrl.envs."],
    "env.batch_argument": nullable(CHOICE),
    "eval.episodes": COUNT,
    "eval.final_episodes": COUNT,
    "eval.max_steps": COUNT,
    "eval.video_steps": INDEX,
    "eval.deterministic": TRUTH,
    "eval.best_of": INDEX,
    "eval.success": [
        *nullable(WORD),
        *("x", "x >", "> 3", "x > y", "x >= 3", "x > 1 > 2", "x > nan", "x < inf", "x 3"),
        {"entry": "x"},
        {"entry": "x", "above": 1.0, "below": 2.0},
        {"entry": "x", "above": "1"},
        {"above": 1.0},
        {"entry": "x", "over": 1.0},
    ],
    "compile.compile": TRUTH,
    "compile.compile_mode": nullable(CHOICE),
    "compile.cudagraphs": TRUTH,
    "training.total_frames": COUNT,
    "training.warmup_frames": INDEX,
    "training.updates_per_step": COUNT,
    "training.batch_size": COUNT,
    "training.buffer_size": COUNT,
    "training.reward_scale": POSITIVE,
    "training.log_interval": COUNT,
    "training.eval_interval": COUNT,
    "training.checkpoint_interval": COUNT,
    "training.iterations": COUNT,
    "training.steps": COUNT,
    "training.updates": COUNT,
    "training.num_epochs": COUNT,
    "training.num_minibatches": COUNT,
    "training.final_lr_fraction": FRACTION,
    "optim.lr": POSITIVE,
    "optim.lr_qvalue": POSITIVE,
    "optim.lr_actor": POSITIVE,
    "optim.lr_alpha": POSITIVE,
    "optim.beta1": [*FRACTION, 1],
    "optim.final_lr_fraction": FRACTION,
    "optim.target_update_interval": nullable(COUNT),
    "optim.target_tau": nullable(RATE),
    "optim.max_grad_norm": POSITIVE,
    "optim.alpha": FRACTION,
    "optim.eps": POSITIVE,
    "exploration.noise": NONNEGATIVE,
    "exploration.theta": nullable(RATE),
    "exploration.hold": INDEX,
    "exploration.parameter_noise": NONNEGATIVE,
    "exploration.uniform_fraction": FRACTION,
    "loss.gamma": FRACTION,
    "loss.n_steps": COUNT,
    "loss.v_min": NUMBER,
    "loss.v_max": NUMBER,
    "loss.num_atoms": COUNT,
    "replay.priority_exponent": NONNEGATIVE,
    "replay.importance_exponent": FRACTION,
    "loss.lmbda": FRACTION,
    "loss.temperature": [v for v in POSITIVE if v != 0 or isinstance(v, bool)],
    "loss.final_temperature": nullable(POSITIVE),
    "loss.kernel": TARGET,
    "loss.num_action_samples": COUNT,
    "loss.num_value_samples": COUNT,
    "loss.num_qvalue_nets": COUNT,
    "loss.value_proposal": nullable(CHOICE),
    "loss.value_target": CHOICE,
    "loss.squash": CHOICE,
    "loss.fixed_alpha": TRUTH,
    "loss.alpha_target": CHOICE,
    "loss.beta": POSITIVE,
    "loss.target_entropy": ["1", "minus", None, [], {}, True, math.nan, math.inf],
    "loss.force": CHOICE,
    "loss.ensemble_reduction": CHOICE,
    "loss.loss_function": CHOICE,
    "loss.num_steps": INDEX,
    "loss.step_size": POSITIVE,
    "loss.bound_step": TRUTH,
    "loss.num_probes": COUNT,
    "loss.policy_noise": NONNEGATIVE,
    "loss.importance_bound": POSITIVE,
    "loss.kl_bound": POSITIVE,
    "loss.entropy_coeff": nullable(NONNEGATIVE),
    "loss.critic_coeff": nullable(POSITIVE),
    "loss.name": CHOICE,
    "loss.clip_epsilon": nullable(FRACTION),
    "loss.kl_target": nullable(POSITIVE),
    "loss.kl_coeff": nullable(POSITIVE),
    "loss.noise_clip": NONNEGATIVE,
    "loss.actor_interval": COUNT,
    "trust_region.weight": NONNEGATIVE,
    "trust_region.cost": TARGET,
    "trust_region.num_action_samples": COUNT,
    "trust_region.tau": nullable(RATE),
    "annealing.updates": INDEX,
    "annealing.temperature": POSITIVE,
    "annealing.noise_set_size": COUNT,
    "base.name": CHOICE,
    "base.num_epochs": COUNT,
    "base.num_minibatches": COUNT,
    "base.clip_epsilon": nullable(FRACTION),
    "kernel": TARGET,
    "cost": TARGET,
    "selection.interval": COUNT,
    "selection.scale": POSITIVE,
    "selection.jitter": POSITIVE,
    "trpo.max_kl": POSITIVE,
    "trpo.damping": NONNEGATIVE,
    "trpo.iterations": COUNT,
    "trpo.fisher_stride": COUNT,
    "method": CHOICE,
    "data": nullable(WORD),
    "target": [1.5, [], {}, True, math.nan],
    "weight": NONNEGATIVE,
    "splits.num_splits": COUNT,
    "splits.test_fraction": [*POSITIVE, 1, 1.5],
    "posterior.num_particles": COUNT,
    "posterior.num_cells": COUNT,
    "posterior.weight_precision": nullable(POSITIVE),
    "runs": ["x", 0, None, {}, [], [1], [""], [None], True],
    "compare": ["x", 0, None, {}, [1], [""], True],
}
# Sections as a whole: what a class or an environment takes is theirs.
OPEN = {"cost", "env.options", "env_options", "kernel", "loss.kernel", "trust_region.cost"}
VARIANTS = {
    "ppo": [[], ["ppo_loss=kl_penalty"]],
    "svpg": [["base=ppo"], ["selection=none", "trust_region=wasserstein"]],
    "soft_q": [[], ["task=ant_maze"]],
    "compose": [["runs=[a]"]],
}


def leaves(values, prefix=""):
    """Dotted names of settings, and what they cannot be; a section may be null as a whole."""
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and path not in OPEN:
            yield from leaves(value, f"{path}.")
        elif value is None and path in SECTIONS:
            yield path, nullable(SECTION)
        else:
            yield path, KINDS[path]


SECTIONS = {path.split(".")[0] for path in KINDS if "." in path} | {"sampler", "selection"}


def changed(values, path, value):
    values = copy.deepcopy(values)
    *sections, last = path.split(".")
    place = values
    for section in sections:
        place = place[section]
    place[last] = value
    return values


def line_of(settings, values, path, value):
    """The refusal of a value: one line."""
    try:
        settings.parse(changed(values, path, value))
    except SettingsError as error:
        line = str(error)
    else:
        pytest.fail(f"{path}={value!r} is accepted")
    assert "\n" not in line
    assert len(line) < 500
    assert "Error" not in line
    return line


NO_TEMPERATURE = ("d4pg", "ddpg", "maddpg", "td3")


@pytest.mark.parametrize("name", RECIPES)
def test_every_wrong_value_of_every_setting(recipe, name):
    settings, seen, tried = recipe(name).Settings, set(), 0
    for overrides in VARIANTS.get(name, [[]]):
        values = OmegaConf.to_container(_composed(name, *overrides), resolve=True)
        settings.parse(values)  # as it stands it is right
        for path, wrong in leaves(values):
            seen.add(path)
            if path == "loss.temperature" and name in NO_TEMPERATURE:
                wrong = [value for value in wrong if value is not None]
            for value in wrong:
                line = line_of(settings, values, path, value)
                # A rule of two settings names both.
                assert path in line or path.split(".")[-1] in line, (path, value, line)
                tried += 1
            line = line_of(settings, values, f"{path}x", 1)
            assert f"there is no setting {path}x" in line
            *sections, last = path.split(".")
            without = copy.deepcopy(values)
            place = without
            for section in sections:
                place = place[section]
            del place[last]
            try:
                settings.parse(without)  # a few have a default
            except SettingsError as error:
                expected = f"setting {path} is missing"
                if path == "exploration.noise":  # its default, 0, does not go with theta
                    expected = "exploration: expected noise above 0 where theta is given"
                assert str(error).startswith(expected)  # noqa: PT017
    assert tried > 150
    assert {"seed", "recipe", "run_dir"} <= seen


def test_no_kind_is_forgotten(recipe):
    known = set()
    for name in RECIPES:
        for overrides in VARIANTS.get(name, [[]]):
            values = OmegaConf.to_container(_composed(name, *overrides), resolve=True)
            known |= {path for path, _ in leaves(values)}
    assert set(KINDS) <= known


# command lines

BAD = """
eval.episodes=0 | eval.episodes must be greater than or equal to 1, got 0
eval.max_steps=0 | eval.max_steps must be
eval.final_episodes=0 | eval.final_episodes must be
seed=-1 | seed must be greater than or equal to 0, got -1
seed=null | seed must be an integer, got null
device=gpu9 | device must be cpu, cuda or cuda:NUMBER, got 'gpu9'
threads=1.5 | threads must be an integer, got 1.5
network.num_cells=64 | network.num_cells must be a list, got 64
optim.lr_actor=-1 | optim.lr_actor must be greater than 0, got -1
loss.gamma=2 | loss.gamma must be less than or equal to 1, got 2
optim.target_update_interval=-5 | optim.target_update_interval must be
training.buffer_size=1.5 | training.buffer_size must be an integer, got 1.5
training.total_frames=160.7 | training.total_frames must be an integer, got 160.7
training.reward_scale=0 | training.reward_scale must be greater than 0, got 0
run_dir='' | run_dir must be a word that is not empty, got ''
recipe=svpg | recipe must be 'soft_q', got 'svpg'
exploration.noise=nan | exploration.noise must be a finite number, got nan
exploration.noise=inf | exploration.noise must be a finite number, got inf
optim.lr_actor=1e300 | optim.lr_actor must be less than
seed=99999999999999999999 | seed must be less than
seed=1e3 | seed must be an integer, got 1000.0
seed='3' | seed must be an integer, got '3'
seed=true | seed must be an integer, got True
seed=[1] | seed must be an integer, got [1]
seed={a:1} | seed must be an integer, got {'a': 1}
seed=1,2 | seed: expected one value, got 1,2; several are for --multirun, a list is in [ ]
seed=range(3) | several are for --multirun
task=multigoal,ant | several are for --multirun
seed | seed: expected NAME=VALUE
seed==1 | seed==1: expected NAME=VALUE
seed=[1 | seed=[1: expected NAME=VALUE
seed=${foo} | seed: Interpolation key 'foo' not found
seed=${oc.env:NO_SUCH_VARIABLE} | seed:
seed=??? | Missing mandatory value: seed
sed=1 | there is no setting sed; did you mean seed?
optim.lr_actr=1 | there is no setting optim.lr_actr; did you mean optim.lr_actor?
loss.temprature=1 | there is no setting loss.temprature; did you mean loss.temperature?
+loss.temprature=1 | there is no setting loss.temprature; did you mean loss.temperature?
++loss.temprature=1 | there is no setting loss.temprature; did you mean loss.temperature?
++nonsense=1 | there is no setting nonsense
+nonsense=1 | there is no setting nonsense
nonsense=1 | there is no setting nonsense
~nonsense | there is no setting nonsense
~seed | setting seed is missing
~loss.gamma | setting loss.gamma is missing
~loss | setting loss is missing
~task | '${task}'
+seed=1 | seed is a setting already, leave out the +
+task=multigoal | task is a setting already, leave out the +
task=nix | task must be one of ant, ant_hallway, ant_maze,
task=null | task must be one of ant,
task=3 | task must be one of ant, ant_hallway,
task='' | task
task@env=multigoal | task@env
kernel=rbf | there is no setting kernel; did you mean loss.kernel?
base=ppo | there is no setting base
training=5 | training must be a section, got 5
training=null | training must be a section, got null
training=[] | training=[]
training.foo=1 | there is no setting training.foo
training.foo.bar=1 | there is no setting training.foo
seed.x=1 | there is no setting seed.x
compile=5 | compile must be one of default, got 5
trust_region=none | trust_region has settings of its own, trust_region.NAME=VALUE
task= | task must be one of ant,
=3 | =3: expected NAME=VALUE
optim.x=[4 | optim.x=[4: expected NAME=VALUE, with quotes and brackets in pairs
eval.success=a<1 | a value with spaces or signs is quoted twice, 'eval.success="a<1"'
eval.success=3 | eval.success must be an entry, < or >, and a number, as in 'distance < 4.9', got 3
compile.compile=yes | compile.compile must be true or false, got 'yes'
compile.compile=1 | compile.compile must be true or false, got 1
compile.compile_mode=fast | compile.compile_mode must be 'default', 'reduce-overhead'
compile.cudagraphs=true | expected compile.cudagraphs with device=cuda; the device is cpu
logger=tb | logger must be 'csv', 'tensorboard', 'wandb' or 'none', got 'tb'
logger=null | logger must be
env.name='' | env.name must be a word that is not empty, got ''
env.name=a:b | env.name must be the id of a registered environment, without a colon, got 'a:b'
env.name=3 | env.name must be a word, got 3
env.num_envs=0 | env.num_envs must be
env.num_envs=1e9 | env.num_envs must be an integer
env.info=x | env.info must be a list, got 'x'
env.info=[1] | env.info.0 must be a word, got 1
env.options=5 | env.options must be a section, got 5
env.options.start=1 | env.options has no start; to add it: +env.options.start=VALUE
env.options={start:1} | env.options has no start; to add it: +env.options.start=VALUE
loss.kernel.width=1 | loss.kernel has no width; to add it: +loss.kernel.width=VALUE
env.batch_argument=rows | env.batch_argument must be 'num_envs' or 'batch_size', got 'rows'
env._target_=os.system | env._target_ must be AntEnv
env._target_=torchrl.envs.GymEnv | got torchrl.envs.GymEnv; --trust builds whatever it names
env._target_=torchrl.envs.AntEnv +env.options.compile_kwargs.options={} | a section compile_kwargs
env.target=a | there is no setting env.target; did you mean env._target_?
eval.success=foo | eval.success must be an entry, < or >, and a number
eval.success='x > 1' | expected eval.success about an entry of env.info, which is [], got 'x'
eval.success={entry:a} | eval.success: expected an entry and one of above and below
eval.success={entry:a,above:nan} | eval.success.above must be a finite number, got nan
task=ant_maze eval.success='speed > 1' | expected eval.success about an entry of env.info
task=ant_maze env.info=[] | expected eval.success about an entry of env.info, which is []
loss.squash=tanh | loss.squash must be 'unsquashed', 'reference' or 'none', got 'tanh'
loss.kernel=null | loss.kernel must be a section with a _target_
loss.kernel=rbf | loss.kernel must be a section with a _target_
loss.kernel._target_=os.system | loss.kernel: _target_ must be a kernel
loss.kernel.bandwidth._target_=builtins.eval | loss.kernel: _target_ must be a kernel
loss.num_action_samples=2.0 | loss.num_action_samples must be an integer, got 2.0
network.num_cells=[0] | network.num_cells.0 must be greater than or equal to 1, got 0
network.num_cells=[8,x] | network.num_cells.1 must be an integer, got 'x'
network.num_cells=null | network.num_cells must be a list, got null
optim.target_tau=0.1 | optim: expected one of target_update_interval and target_tau
optim.target_update_interval=null | optim: expected one of target_update_interval and target_tau
training.total_frames=100 | training: expected total_frames above warmup_frames
training.buffer_size=10 | expected training.buffer_size of at least env.num_envs; they are 10 and 64
training.batch_size=99999999999 | training.batch_size must be less than
exploration.theta=0.2 | exploration: expected noise above 0 where theta is given
exploration.theta=0 | exploration.theta must be greater than 0, got 0
exploration.uniform_fraction=1.1 | exploration.uniform_fraction must be less than or equal to 1
annealing.updates=-1 | annealing.updates must be
trust_region.cost._target_=torch.load | trust_region.cost: _target_ must be a kernel
trust_region.num_action_samples=100000 | trust_region.num_action_samples must be less than
resume='' | resume must be a word that is not empty, got ''
resume=nowhere | resume: no checkpoint at nowhere
resume=[a] | resume must be a word, got ['a']
init_from='' | init_from must be a word that is not empty, got ''
hydra.nonsense=1 | there is no setting hydra.nonsense
"""
OTHERS = """
svpg base=ppo base.clip_epsilon=-1 | base.clip_epsilon must be greater than or equal to 0, got -1
svpg base=ppo loss.clip_epsilon=-1 | there is no setting loss.clip_epsilon
svpg base=reinfrce | base must be one of a2c, ppo, reinforce, got reinfrce
svpg kernel=foo | kernel must be one of behaviour, drift, layerwise, none, radial, rbf,
svpg selection=foo | selection must be one of birth_death, none, got foo
svpg selection=birth_death trust_region=wasserstein | expected selection=none with a trust_region
svpg kernel._target_=torchrl_stein.runs.session.Session | kernel: _target_ must be a kernel
svpg mode=joint | there is no setting mode
svpg seeds=0 | seeds must be greater than or equal to 1, got 0
svpg seeds=5 env=Hopper-v5 | expected seeds=1 with env=Hopper-v5
svpg env=1 | env must be a word, got 1
svpg env=a:b | env must be the id of a registered environment, without a colon, got 'a:b'
svpg training.iterations=0 | training.iterations must be
svpg loss.final_temperature=0 | loss.final_temperature must be greater than 0, got 0
sharded_svpg resume=x | resume must be null, got 'x'
sharded_svpg processes=0 | processes must be
trpo trpo.max_kl=0 | trpo.max_kl must be greater than 0, got 0
trpo trpo.num_candidates=0 | there is no setting trpo.num_candidates
bnn_regression target=1.5 | target must be a word, got 1.5
bnn_regression target=1 | expected data, of which target names a column; target is 1
bnn_regression splits.test_fraction=1 | splits.test_fraction must be less than 1, got 1
bnn_regression method=map | method must be 'svgd' or 'wgf', got 'map'
bnn_regression resume=x | there is no setting resume
compose runs=a | runs must be a list, got 'a'
compose runs=[] | runs must be a list that is not empty, got []
compose | Missing mandatory value: runs
compose runs=[a] resume=x | there is no setting resume
td3 loss.actor_interval=0 | loss.actor_interval must be
td3 exploration.noise=-0.1 | exploration.noise must be
d4pg loss.n_steps=0 | loss.n_steps must be
d4pg loss.v_min=5 | expected loss.v_min below loss.v_max
d4pg loss.num_atoms=1 | expected loss.v_min below loss.v_max and at least two atoms
d4pg training.warmup_frames=300 | training.warmup_frames of at least loss.n_steps * env.num_envs
d4pg seeds=2 | seeds must be less than or equal to 1
maddpg env.name=multigoal | env.name must be 'simple_spread', got 'multigoal'
maddpg env._target_=torchrl.envs.GymEnv | env._target_ must be null
maddpg seeds=2 | seeds must be less than or equal to 1, got 2
soft_q env.name=simple_spread | env.name must be a task of one agent; those of several are for
svpg env=simple_spread | env must be a task of one agent; those of several are for maddpg.py, got
sac ~task | setting
ddpg loss.temperature=0 | loss.temperature must be greater than 0, got 0
soft_q loss.value_proposal=log_distance | expected loss.value_target=entropy_regularized with
soft_q task=hopper network.norm=batch_renorm | expected loss.num_value_samples=1 with
sac loss.actor_interval=2 | expected loss.actor_interval=1 but for network.norm=batch_renorm
sac network.norm=batch_renorm seeds=2 | seeds=1 with network.norm=batch_renorm
sac loss.alpha=1 | there is no setting loss.alpha
"""


def cases(text, recipe=None):
    for line in text.strip().splitlines():
        command, _, expected = line.partition(" | ")
        name, *overrides = ([recipe] if recipe else []) + re.split(r" (?!>|1$|1')", command)
        yield pytest.param(name, overrides, expected, id=line.replace(" | ", "|")[:60])


@pytest.mark.parametrize(("name", "overrides", "expected"), [*cases(BAD, "soft_q"), *cases(OTHERS)])
def test_a_bad_command_line_is_one_line(recipe, name, overrides, expected):
    with pytest.raises(SettingsError) as error:
        recipe(name).read(*[part for part in overrides if part])
    line = str(error.value)
    assert expected in line
    assert "\n" not in line
    assert len(line) < 500


# what is right


def test_plus_plus_changes_a_setting_that_there_is(recipe):
    assert recipe("soft_q").read("++eval.episodes=9").eval.episodes == 9
    assert recipe("soft_q").read("+env.options.init_sigma=2.0").env.options["init_sigma"] == 2.0
    assert recipe("svpg").read("+env_options.sparse_reward=true").env_options == {
        "sparse_reward": True
    }


@pytest.mark.parametrize(
    "given",
    [
        ["eval.success='min_distance_to_target > 3'"],
        ["eval.success={entry:min_distance_to_target,above:3}"],
        ["~eval.success", "+eval.success={entry:min_distance_to_target,above:3}"],
        ["++eval.success={entry:min_distance_to_target,above:3.0}"],
    ],
)
def test_a_rule_of_success_can_be_replaced(recipe, given):
    rule = recipe("soft_q").read("task=ant_maze", *given).eval.success
    assert (rule.entry, rule.above, rule.below) == ("min_distance_to_target", 3.0, None)
    assert recipe("soft_q").read("task=ant_maze", "eval.success=null").eval.success is None


def test_numbers_are_what_they_say(recipe):
    settings = recipe("soft_q").read("optim.lr_actor=1", "training.total_frames=7000")
    assert settings.optim.lr_actor == 1.0
    # 6400 of 7000 steps of 64 environments are a warm-up: batches 101 to 110 are learnt from.
    assert settings.num_updates == 10


def test_a_sweep_is_for_multirun():
    cfg = compose_settings(CONF, "soft_q", ["seed=1,2", "loss.gamma=0.5"], multirun=True)
    assert (cfg.seed, cfg.loss.gamma) == (0, 0.5)
