"""What the settings of a stranger may build, and what they may not."""

import inspect
import os
import sys

import pytest
import torch
import torchrl.envs
from torchrl.envs import EnvBase

import torchrl_stein.envs
from torchrl_stein.kernels import MedianBandwidth, RBFKernel
from torchrl_stein.objectives import SinkhornCost
from torchrl_stein.runs import build, targets
from torchrl_stein.runs.targets import check_environment, find_environment_class

RBF = {"_target_": "torchrl_stein.kernels.RBFKernel"}
SCHEDULE = {
    "_target_": "torchrl_stein.objectives.LinearSchedule",
    "start": 1.0,
    "end": 0.1,
    "num_steps": 5,
}


def test_ours_are_built_with_what_is_inside_of_them():
    kernel = build(
        {
            "_target_": "torchrl_stein.kernels.RBFKernel",
            "bandwidth": {
                "_target_": "torchrl_stein.kernels.MedianBandwidth",
                "denominator": "2log(n+1)",
            },
        }
    )
    points = torch.randn(5, 2)
    assert kernel(points).equal(RBFKernel(MedianBandwidth("2log(n+1)"))(points))
    cost = build({"_target_": "torchrl_stein.objectives.SinkhornCost", "num_iterations": 7})
    assert isinstance(cost, SinkhornCost)
    assert build(SCHEDULE)(5) == pytest.approx(0.1)
    twice = build({"_target_": "torchrl_stein.kernels.SumKernel", "first": RBF, "second": RBF})
    assert twice(points).equal(2 * RBFKernel()(points))


def test_a_recipe_adds_what_settings_cannot_say():
    points = torch.randn(5, 2)
    outer = {"_target_": "torchrl_stein.kernels.ScaledKernel", "kernel": RBF, "scale": 2.0}
    found = build(outer, {RBFKernel: {"bandwidth": 3.0}})
    assert found(points).equal(2 * RBFKernel(3.0)(points))


NOT_OURS = [
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.exec",
    "builtins.open",
    "torch.load",
    "torch.hub.load",
    "pickle.loads",
    "importlib.import_module",
    "hydra.utils.call",
    "tests.runs.test_targets.Spy",
    "torchrl_stein.kernels.torch",
    "torchrl_stein.kernels.os",
    "torchrl_stein.kernels.__name__",
    "torchrl_stein.kernels.",
    "torchrl_stein.kernels.NoKernel",
    "torchrl_stein.kernels.Kernel",
    "torchrl_stein.objectives.TransportCost",
    "torchrl_stein.modules.shard_particles",
    "torchrl_stein.objectives.SoftQLoss",
    "torchrl_stein.objectives.NaturalGradientStep",
    "torchrl_stein.runs.saved._import_recipe",
    "torchrl_stein.regression.read_table",
    ".kernels.RBFKernel",
    "RBFKernel",
    "",
    ".",
    None,
    3,
    ["os", "system"],
]


@pytest.mark.parametrize("name", NOT_OURS, ids=repr)
def test_nothing_else_is_built(name):
    with pytest.raises(ValueError, match=r"_target_"):
        build({"_target_": name})
    with pytest.raises(ValueError, match=r"_target_"):
        build({**RBF, "bandwidth": {"_target_": name}})
    with pytest.raises(ValueError, match=r"_target_"):
        build({"_target_": "torchrl_stein.kernels.SumKernel", "kernels": [RBF, {"_target_": name}]})


class Spy:
    called = False

    def __init__(self, **arguments):
        Spy.called, self.arguments = True, arguments


def test_not_even_imported(monkeypatch, tmp_path):
    (tmp_path / "strange_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("strange_module.Kernel", "torchrl_stein.kernels.strange_module"):
        with pytest.raises(ValueError, match="_target_"):
            build({"_target_": name})
    with pytest.raises(ValueError, match="_target_"):
        find_environment_class("strange_module.Env", {})
    assert "strange_module" not in sys.modules
    build_it = {"_target_": "tests.runs.test_targets.Spy"}
    with pytest.raises(ValueError, match="--trust"):
        build(build_it)
    assert not Spy.called


def test_wrong_arguments_are_one_line():
    with pytest.raises(ValueError, match=r"RBFKernel: .*unexpected keyword argument 'widht'"):
        build({**RBF, "widht": 1})
    for key in ("_args_", "_partial_", "_recursive_", "_convert_"):
        with pytest.raises(ValueError, match="unexpected keyword argument"):
            build({**RBF, key: True})


def test_interpolations_are_words(monkeypatch):
    monkeypatch.setenv("SECRET", "s3cret")
    with pytest.raises(ValueError) as error:  # noqa: PT011
        build({**RBF, "bandwidth": "${oc.env:SECRET}"})
    assert "s3cret" not in str(error.value)


def test_with_trust_everything_is_built():
    targets.trust_all_targets()
    built = build({"_target_": f"{__name__}.Spy", "x": [{"_target_": "builtins.dict", "a": 1}]})
    assert built.arguments == {"x": [{"a": 1}]}
    assert find_environment_class("os.getcwd", {}) is os.getcwd
    with pytest.raises(ValueError, match="there is no"):
        build({"_target_": "no_such.Thing"})


# environments


ALLOWED = [f"{folder}.{name}" for folder, names in targets._ENVIRONMENTS.items() for name in names]


@pytest.mark.parametrize("name", ALLOWED)
def test_environments_that_are_allowed_are_environments(name):
    found = find_environment_class(name, {"backend": "mujoco", "horizon": 3})
    assert inspect.isclass(found)
    assert issubclass(found, EnvBase)


def test_all_others_need_trust():
    every = [
        f"{module.__name__}.{name}"
        for module in (torchrl.envs, torchrl_stein.envs)
        for name in dir(module)
        if not name.startswith("_")
    ]
    assert len(every) > 100
    refused = set(every) - set(ALLOWED)
    assert {
        "torchrl.envs.GymEnv",
        "torchrl.envs.UnityMLAgentsEnv",
        "torchrl.envs.VmasEnv",
    } < refused
    for name in [*refused, "os.system", "torchrl.envs.", "torchrl.envs.libs.gym.GymEnv", "", "x"]:
        with pytest.raises(ValueError, match="--trust builds whatever it names"):
            find_environment_class(name, {})
    # Constructors of those that are allowed take nothing that Python would call or import.
    for name in ALLOWED:
        words = {
            "module",
            "env_fn",
            "create_env_fn",
            "file_name",
            "scenario",
            "download",
            "wrappers",
        }
        parameters = set(inspect.signature(find_environment_class(name, {}).__init__).parameters)
        assert not parameters & words, name


def test_sections_among_the_options_of_an_environment_need_trust():
    # torch.compile takes the name of a compiler to run.
    options = {"compile_step": True, "compile_kwargs": {"options": {"cpp.cxx": ["/bin/true"]}}}
    with pytest.raises(ValueError, match="got a section compile_kwargs; --trust passes on"):
        check_environment("torchrl.envs.AntEnv", options)
    check_environment("torchrl.envs.AntEnv", {"compile_step": False, "goals": [[1.0, None]]})
    targets.trust_all_targets()
    check_environment("torchrl.envs.AntEnv", options)
