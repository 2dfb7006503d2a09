"""Every number that a public constructor or function takes is looked at: none is accepted silently.

The table below says how each of them is called rightly; the arguments that are numbers are read
from the signatures, so that a new one without a check fails here.
"""

import importlib
import inspect
import math
from functools import cache, partial

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.data import Bounded, OneHot
from torchrl.modules import MLP, IndependentNormal, ProbabilisticActor, ValueOperator
from torchrl.objectives import A2CLoss

from torchrl_stein import AmortizedSVGDActor, ParticleModule
from torchrl_stein.envs import MultiGoalWorld
from torchrl_stein.kernels import RBFKernel
from torchrl_stein.modules import (
    BoltzmannActor,
    StochasticDuelingNetwork,
    SVGDActor,
    TanhGaussianActor,
)
from torchrl_stein.objectives import TRPOLoss
from torchrl_stein.regression import RegressionPosterior, Table

FOLDERS = ("functional", "kernels", "modules", "objectives", "envs", "regression", "comparison")
NAN, INF = math.nan, math.inf
NO_COUNT = (2.5, True, "3", NAN, INF, [3], -1)
NO_NUMBER = (NAN, INF, -INF, "1", True, [1.0])


def normal(actor_network):
    return ProbabilisticActor(
        TensorDictModule(actor_network, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=IndependentNormal,
        return_log_prob=True,
    )


def network():
    return nn.Sequential(nn.Linear(3, 4), NormalParamExtractor())


def spec():
    return Bounded(-1.0, 1.0, (2,))


def sampler():
    return AmortizedSVGDActor(MLP(5, 2, num_cells=[4]), action_spec=spec())


def qvalue():
    return ValueOperator(MLP(5, 1, num_cells=[4]), in_keys=["observation", "action"])


def action_values():
    return TensorDictModule(nn.Linear(3, 2), ["observation"], ["action_value"])


def population():
    return normal(ParticleModule(network, 4))


def a2c():
    return A2CLoss(population(), ValueOperator(ParticleModule(lambda: nn.Linear(3, 1), 4)))


def s2ac():
    critic = qvalue()
    actor = SVGDActor(network(), critic, action_spec=spec())
    return {"actor_network": actor, "qvalue_network": critic}


def cost_matrix():
    return {"cost": torch.rand(4, 5), "regularization": 0.1}


def q_and_density(function):
    names = list(inspect.signature(function).parameters)
    return dict(zip(names[:2], (torch.randn(3, 8), torch.zeros(3, 8)), strict=True)) | {
        "temperature": 1.0
    }


@cache
def valid():
    """Arguments with which each is called rightly, by folder and name."""
    f = importlib.import_module("torchrl_stein.functional")
    x = torch.randn(5, 2)
    return {
        "functional.birth_death_rates": lambda: {
            "gram": torch.eye(2) + 0.5,
            "returns": torch.ones(2),
            "scale": 0.5,
        },
        "functional.boltzmann_value": lambda: q_and_density(f.boltzmann_value),
        "functional.couple_particles": lambda: {
            "particles": x,
            "gram": torch.eye(5),
            "num_columns": 2,
        },
        "functional.conjugate_gradient": lambda: {
            "matvec": lambda v: v,
            "b": torch.randn(3, 4),
        },
        "functional.entropic_plan": cost_matrix,
        "functional.entropic_transport": cost_matrix,
        "functional.mellowmax_value": lambda: q_and_density(f.mellowmax_value),
        "functional.entropy_regularized_value": lambda: q_and_density(f.entropy_regularized_value),
        "functional.expected_value": None,  # ignores its temperature
        "functional.evolution_gradient": lambda: {
            "returns": torch.randn(2, 5),
            "directions": x,
            "scale": 0.1,
        },
        "functional.mode_frequencies": lambda: {"x": x, "modes": x[:2], "radius": 0.5},
        "functional.removal_success_in_tries": lambda: {
            "goals": torch.arange(-1, 4),
            "num_goals": 4,
        },
        "functional.success_in_tries": lambda: {"success": torch.ones(5, dtype=torch.bool)},
        "functional.sinkhorn_divergence": lambda: {"x": x, "y": x + 1, "regularization": 0.1},
        "functional.soft_value": lambda: q_and_density(f.soft_value),
        "functional.soft_value_iteration": lambda: {
            "rewards": torch.ones(2, 3),
            "following": torch.zeros(2, 3, dtype=torch.int64),
            "discounts": torch.zeros(2, 3),
            "temperature": 1.0,
        },
        "functional.retrace": lambda: {
            **dict.fromkeys(
                ("state_action_value", "next_state_value", "reward", "trace"), torch.zeros(4, 1)
            ),
            **dict.fromkeys(("done", "terminated"), torch.zeros(4, 1).bool()),
            "gamma": 0.9,
        },
        "functional.svgd_log_det": lambda: {
            "x": x,
            "scores": x,
            "hessian_trace": x[:, 0],
            "bandwidth": 1.0,
        },
        "functional.svgd_step_bound": lambda: {
            "x": x,
            "scores": x,
            "probes": x.expand(2, 5, 2),
            "products": x.expand(2, 5, 2),
            "bandwidth": 1.0,
        },
        "functional.adapt_kl_penalty": lambda: {
            "beta": x,
            "kl": x.abs(),
            "kl_target": 0.01,
        },
        "functional.truncated_importance": lambda: {"log_ratio": x, "bound": 2.0},
        "functional.trust_region_projection": lambda: {
            "gradient": x,
            "kl_gradient": x,
            "bound": 1.0,
        },
        "functional.wgf_potential": cost_matrix,
        "kernels.BehaviourKernel": lambda: {"actor": population()},
        "kernels.DriftControl": lambda: {"kernel": RBFKernel(), "num_particles": 4, "dim": 3},
        "kernels.IMQKernel": dict,
        "kernels.LinearKernel": dict,
        "kernels.MeanBandwidth": dict,
        "kernels.MedianBandwidth": dict,
        "kernels.RBFKernel": dict,
        "kernels.RadialKernel": dict,
        "kernels.ScaledKernel": lambda: {"kernel": RBFKernel(), "scale": 2.0},
        "kernels.SharedDriftControl": lambda: {
            "kernel": RBFKernel(),
            "num_particles": 4,
            "dim": 3,
        },
        "modules.AmortizedSVGDActor": lambda: {"network": MLP(5, 2), "action_spec": spec()},
        "modules.BatchRenorm": lambda: {"num_features": 3},
        "modules.BestActionActor": lambda: {
            "actor": sampler(),
            "qvalue": lambda states, actions: actions.sum(-1),
            "num_action_samples": 4,
        },
        "modules.BirthDeath": lambda: {
            "population": ParticleModule(network, 4),
            "kernel": RBFKernel(),
        },
        "modules.BoltzmannActor": lambda: {
            "qvalue_network": action_values(),
            "action_spec": OneHot(2),
        },
        "modules.EnsemblePolicy": lambda: {"actor": population(), "mode": "best", "best": 1},
        "modules.HeldNoiseActor": lambda: {"actor": sampler(), "max_steps": 4},
        "modules.LinearBaseline": lambda: {"num_particles": 4, "observation_dim": 3},
        "modules.ParameterNoise": lambda: {"policy": action_values(), "scale": 0.1},
        "modules.ParticleModule": lambda: {"factory": network, "num_particles": 4},
        "modules.SVGDActor": lambda: {
            "network": network(),
            "qvalue_network": qvalue(),
            "action_spec": spec(),
        },
        "modules.SamplingActor": lambda: {
            "action_spec": spec(),
            "noise_dim": 2,
            "in_keys": ["observation"],
            "out_keys": ["action"],
        },
        "modules.StandardizePerParticle": dict,
        "modules.TanhGaussianActor": lambda: {"network": network(), "action_spec": spec()},
        "modules.TanhGaussianMixtureActor": lambda: {
            "network": ParticleModule(network, 4),
            "action_spec": spec(),
        },
        "modules.shard_particles": lambda: {"network": population(), "rank": 0, "world_size": 2},
        "objectives.ACERLoss": lambda: {
            "actor_network": normal(network()),
            "critic_network": StochasticDuelingNetwork(nn.Linear(3, 1), MLP(5, 1)),
            "entropy_coeff": 0.1,
        },
        "objectives.ActionSpace": dict,
        "objectives.D4PGLoss": lambda: {
            "actor_network": TensorDictModule(nn.Linear(3, 2), ["observation"], ["action"]),
            "value_network": qvalue(),
            "v_min": -1.0,
            "v_max": 1.0,
        },
        "objectives.DiscreteSoftQLoss": lambda: {
            "actor_network": BoltzmannActor(action_values(), action_spec=OneHot(2))
        },
        "objectives.EntropyTarget": dict,
        "objectives.EvolutionStrategiesLoss": lambda: {
            "actor_network": population(),
            "evaluate": lambda actor, seed: torch.zeros(16),
        },
        "objectives.GaussianPrior": lambda: {"std": 1.0},
        "objectives.LinearSchedule": lambda: {"start": 1.0, "end": 0.5, "num_steps": 3},
        "objectives.LogDistanceTarget": dict,
        "objectives.LogLinearSchedule": lambda: {"start": 1.0, "end": 0.5, "num_steps": 3},
        "objectives.NaturalGradientStep": lambda: {"loss": TRPOLoss(normal(network()))},
        "objectives.S2ACLoss": s2ac,
        "objectives.ShardedSteinPolicyLoss": None,  # needs processes; its checks are its base's
        "objectives.SinkhornCost": dict,
        "objectives.SoftQLoss": lambda: {"actor_network": sampler(), "qvalue_network": qvalue()},
        "objectives.SoftQVLoss": lambda: {
            "actor_network": TanhGaussianActor(network(), action_spec=spec()),
            "qvalue_network": qvalue(),
            "value_network": ValueOperator(nn.Linear(3, 1)),
        },
        "objectives.SteinPolicyLoss": lambda: {"loss_module": a2c()},
        "objectives.TRPOLoss": lambda: {"actor_network": normal(network())},
        "objectives.TransportCost": dict,
        "objectives.WGFPotential": dict,
        "objectives.WGFPotentialDescent": dict,
        "objectives.WassersteinTrustRegionLoss": lambda: {"actor_network": sampler()},
        "objectives.actor_proposal": None,  # the actor looks at its number, whichever it is
        "objectives.actor_samples": None,  # likewise
        "objectives.log_distance_proposal": lambda: {
            "actor": sampler(),
            "states": TensorDict({"observation": torch.zeros(3, 3)}, [3]),
            "num_samples": 4,
        },
        "objectives.uniform_proposal": lambda: {
            "actor": sampler(),
            "states": TensorDict({}, [3]),
            "num_samples": 4,
        },
        "envs.ActionRepeatWorld": lambda: {"world": MultiGoalWorld(), "repeats": 2},
        "envs.CartpoleEnv": dict,
        "envs.CartpoleSwingUpEnv": dict,
        "envs.CartpoleSwingUpWorld": dict,
        "envs.CartpoleWorld": dict,
        "envs.DoublePendulumEnv": dict,
        "envs.DoublePendulumWorld": dict,
        "envs.GoalMaze": lambda: {"text": "11111 1R0G1 11111", "horizon": 5},
        "envs.GoalMazeEnv": dict,
        "envs.GridWorld": dict,
        "envs.GridWorldEnv": dict,
        "envs.MountainCarEnv": dict,
        "envs.MountainCarWorld": dict,
        "envs.MultiGoalEnv": dict,
        "envs.MultiGoalGymEnv": dict,
        "envs.MultiGoalWorld": dict,
        "envs.NStepReturns": lambda: {"n_steps": 3, "gamma": 0.9},
        "envs.SimpleSpreadEnv": dict,
        "envs.SimpleSpreadWorld": dict,
        "envs.RunningRewardScaling": lambda: {"batch_size": [2]},
        "envs.ParticleEnv": None,  # its one number is tested with it
        "envs.SimulatorEnv": None,  # its seed is tested with it
        "envs.BatchedEnv": None,  # its numbers are those of the worlds' environments
        "regression.ParticleFlow": lambda: {
            "posterior": RegressionPosterior(3, 2),
            "kernel": RBFKernel(),
            "optimizer": torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1),
        },
        "regression.RegressionPosterior": lambda: {"num_features": 3, "num_splits": 2},
        "regression.make_splits": lambda: {
            "table": Table("t", torch.randn(40, 3), torch.randn(40)),
        },
        "regression.minibatches": lambda: {
            "features": torch.randn(2, 9, 3),
            "target": torch.randn(2, 9),
            "batch_size": 3,
        },
        "regression.read_table": None,  # a number there is the name of a column
        "comparison.RunScores": None,  # a record of what was read, not an argument
        "comparison.stratified_bootstrap": None,  # works on NumPy arrays; tested with it
    }


# What may be 0, and what may be below it.
MAY_BE_ZERO = {
    "max_d",
    "v_min",
    "v_max",
    "warmup_steps",
    "gamma of envs.RunningRewardScaling",
    "gamma of functional.retrace",
    "gamma of objectives.ACERLoss",
    "entropy_coeff of objectives.ACERLoss",
    "target_entropy",
    "seed",
    "rank",
    "best",
    "damping",
    "start",
    "end",
    "weight",
    "offset",
    "critic_coeff",
    "mean",
    "eps",
    "smoothing",
    "ridge",
    "jitter",
    "init_sigma",
    "exponent",
    "floor",
    "newton_steps",
    "num_steps of modules.SVGDActor",
    "scale",
    "tolerance of functional.conjugate_gradient",
    "temperature of objectives.SteinPolicyLoss",
}
MAY_BE_NEGATIVE = {
    "v_min",
    "v_max",
    "target_entropy",
    "mean",
    "gravity",
    "track_penalty",
    "alive_reward",
    "goal_reward",
    "step_cost",
    "goal_position",
    "sparse_threshold",
}
OF_WORLDS_MAY_BE_ZERO = {
    "gamma of envs.RunningRewardScaling",
    "target_entropy",
    "gravity",
    "drag",
    "friction",
    "force_cost",
    "start_speed",
    "alive_reward",
    "goal_reward",
    "step_cost",
    "action_cost",
    "distance_cost",
    "goal_position",
    "sparse_threshold",
    "track_penalty",
    "init_sigma",
    "pole_width",
    "link_width",
    "force_limit",
    "torque_limit",
    "agent_radius",
    "contact_force",
}


def numbers_of(owner):
    """Names of the arguments that are numbers, with their kind."""
    try:
        parameters = inspect.signature(owner).parameters.values()
    except (TypeError, ValueError):
        return {}
    kinds = {}
    for parameter in parameters:
        words = str(parameter.annotation).replace(" ", "")
        if "Callable[[TensorDict" in words or "Mapping" in words or "Sequence" in words:
            continue
        parts = set(words.split("|"))
        if "int" in parts and "str" not in parts:
            kinds[parameter.name] = "count"
        elif "float" in parts:
            kinds[parameter.name] = "number"
    return kinds


def public():
    for folder in FOLDERS:
        module = importlib.import_module(f"torchrl_stein.{folder}")
        for name in module.__all__:
            owner = getattr(module, name)
            if callable(owner) and numbers_of(owner):
                yield f"{folder}.{name}", owner


CASES = [
    pytest.param(owner, name, argument, kind, id=f"{name}.{argument}")
    for name, owner in public()
    for argument, kind in numbers_of(owner).items()
    if valid().get(name, dict) is not None
]


def test_the_table_knows_every_name():
    unknown = [name for name, _ in public() if name not in valid()]
    assert not unknown, "say in valid() how to call these rightly"


def test_the_table_is_right():
    # Without a wrong number, everything in the table works: refusals below are of the number.
    for name, owner in public():
        if valid()[name] is not None:
            owner(**valid()[name]())


@pytest.mark.parametrize(("owner", "name", "argument", "kind"), CASES)
def test_refuses(owner, name, argument, kind):
    bad = list(NO_COUNT if kind == "count" else NO_NUMBER)
    zero_is_fine = not {argument, f"{argument} of {name}"}.isdisjoint(MAY_BE_ZERO) or (
        name.startswith("envs.") and argument in OF_WORLDS_MAY_BE_ZERO
    )
    if kind == "count" and not zero_is_fine:
        bad.append(0)
    if kind == "number" and argument not in MAY_BE_NEGATIVE:
        bad.append(-1.0)
    if kind == "number" and not zero_is_fine:
        bad.append(0.0)
    if argument == "mean":
        bad.remove([1.0])  # of a prior: one number per parameter
    faults = []
    for value in bad:
        call = partial(owner, **{**valid()[name](), argument: value})
        try:
            call()
        except (TypeError, ValueError) as error:
            if argument not in str(error):
                faults.append(f"{value!r} is refused without a name: {error}")
        else:
            faults.append(f"{value!r} is accepted")
    assert not faults
