"""Actors by keyword, exported with batch sizes that vary, and without this library."""

import inspect
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.data import Bounded
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import MLP, ConvNet, OneHotCategorical, ProbabilisticActor, TanhNormal

from torchrl_stein.modules import (
    AmortizedSVGDActor,
    EnsemblePolicy,
    ParticleModule,
    TanhGaussianActor,
    TanhGaussianMixtureActor,
)

N = 3
KEYS = ["observation", ("agent", "state"), "goal"]
RANDOM, DETERMINISTIC = ExplorationType.RANDOM, ExplorationType.DETERMINISTIC


def word(key):
    return key if isinstance(key, str) else "_".join(key)


class FiLM(nn.Module):
    """A network that is no chain of layers."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(size, outputs) for size in inputs)

    def forward(self, *values):
        return sum(layer(value) for layer, value in zip(self.layers, values, strict=True)).tanh()


@dataclass
class Case:
    """One actor and the sizes of what it reads."""

    kind: str
    sizes: list
    spec: Bounded
    noise: dict
    network: str

    @property
    def keys(self):
        return KEYS[: len(self.sizes)]

    def body(self, inputs, outputs):
        if self.network == "sequential":
            return nn.Sequential(nn.Linear(sum(inputs), 5), nn.SiLU(), nn.Linear(5, outputs))
        if self.network == "mlp":
            return MLP(sum(inputs), outputs, num_cells=[5])
        return FiLM(inputs, outputs)

    def gaussian(self):
        body = self.body(self.sizes, 2 * self.spec.shape[-1])
        if self.network == "film":
            return Gaussian(body)
        return nn.Sequential(body, NormalParamExtractor())

    def population(self):
        body = TensorDictModule(ParticleModule(self.gaussian, N), self.keys, ["loc", "scale"])
        return ProbabilisticActor(
            body,
            in_keys=["loc", "scale"],
            distribution_class=TanhNormal,
            distribution_kwargs={"low": self.spec.space.low, "high": self.spec.space.high},
        )

    def make(self):
        options = {"action_spec": self.spec, "in_keys": self.keys}
        if self.kind == "amortized":
            size = self.noise.get("noise_dim") or self.spec.shape[-1]
            body = self.body([*self.sizes, size], self.spec.shape[-1])
            return AmortizedSVGDActor(body, **options, **self.noise)
        if self.kind == "gaussian":
            return TanhGaussianActor(self.gaussian(), **options)
        if self.kind == "mixture":
            return TanhGaussianMixtureActor(ParticleModule(self.gaussian, N), **options)
        best = 1 if self.kind == "best" else None
        return EnsemblePolicy(self.population(), self.kind, best=best)

    def inputs(self, batch):
        """By keyword."""
        values = {
            word(k): torch.randn(*batch, d) for k, d in zip(self.keys, self.sizes, strict=True)
        }
        if self.kind == "random":
            values["is_init"] = torch.rand(*batch, 1) < 0.5
            values["particle"] = torch.randint(N, (*batch, 1))
        return values


class Gaussian(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body, self.split = body, NormalParamExtractor()

    def forward(self, *values):
        return self.split(self.body(*values))


@st.composite
def cases(draw):
    kind = draw(st.sampled_from(["amortized", "gaussian", "mixture", "best", "mean", "random"]))
    action_dim = draw(st.integers(1, 3))
    low = torch.tensor([draw(st.sampled_from([-3.3, -1.0, 0.1])) for _ in range(action_dim)])
    width = torch.tensor([draw(st.sampled_from([0.2, 1.0, 7.0])) for _ in range(action_dim)])
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    if kind in ("best", "mean", "random"):  # of TorchRL's distribution, which wants one dtype
        dtype = torch.float32
    spec = Bounded(low.to(dtype), (low + width).to(dtype), dtype=dtype)
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    network = draw(st.sampled_from(["sequential", "mlp", "film"]))
    if kind in ("best", "mean", "random") and len(sizes) > 1:
        network = "film"  # TorchRL hands a network all inputs; a Sequential takes one
    noise = draw(st.sampled_from([{}, {"noise_dim": 2}, {"noise_set_size": 5}]))
    return Case(kind, sizes, spec, noise, network)


def as_tuple(out):
    return out if isinstance(out, tuple) else (out,)


def by_tensordict(actor, values, batch):
    names = {word(key): key for key in actor.in_keys}
    states = TensorDict({}, batch)
    for name, value in values.items():
        states[names.get(name, name)] = value
    out = actor(states)
    return tuple(out[key] for key in actor.out_keys)


def export(actor, values, dynamic_dims):
    names = ["batch", "time"][:dynamic_dims]
    dims = {i: torch.export.Dim(name) for i, name in enumerate(names)}
    return torch.export.export(actor, (), kwargs=values, dynamic_shapes=dict.fromkeys(values, dims))


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    case=cases(),
    dims=st.integers(0, 2),
    other=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    exploration=st.sampled_from([RANDOM, DETERMINISTIC]),
)
def test_an_exported_actor_is_the_actor(case, dims, other, exploration):
    torch.manual_seed(0)
    actor = case.make()
    batch, other = (3, 2)[:dims], other[:dims]
    with set_exploration_type(exploration):
        program = export(actor, case.inputs(batch), dims).module()
        values = case.inputs(other)
        results = []
        for call in (
            lambda: by_tensordict(actor, values, other),
            lambda: as_tuple(actor(**values)),
            lambda: as_tuple(program(**values)),
        ):
            torch.manual_seed(1)  # exported noise is drawn in the graph, as here
            results.append(call())
    reference = results[0]
    action = reference[0]
    assert action.shape == (*other, case.spec.shape[-1])
    assert case.spec.expand(action.shape).is_in(action)
    for result in results[1:]:
        for got, want in zip(result, reference, strict=True):
            assert got.dtype == want.dtype
            assert torch.equal(got, want)


@pytest.mark.parametrize("kind", ["amortized", "gaussian", "mixture", "best", "random"])
def test_an_exported_random_policy_draws_anew(kind):
    case = Case(kind, [3], Bounded(-1.0, 1.0, (2,)), {}, "mlp")
    with set_exploration_type(RANDOM):
        program = export(case.make(), case.inputs((4,)), 1).module()
    values = case.inputs((4,))
    first, second = (as_tuple(program(**values))[0] for _ in range(2))
    assert not torch.equal(first, second)


def test_a_population_of_any_policy_by_keyword():
    """Discrete actions, and samplers in a population, follow no batch size either."""
    discrete = ProbabilisticActor(
        TensorDictModule(ParticleModule(lambda: nn.Linear(3, 4), N), ["observation"], ["logits"]),
        in_keys=["logits"],
        distribution_class=OneHotCategorical,
    )
    spec = Bounded(-1.0, 1.0, (2,))
    samplers = AmortizedSVGDActor(
        ParticleModule(lambda: nn.Linear(5, 2), N), action_spec=spec, in_keys=["observation"]
    )
    x = torch.randn(6, 3)
    values = {"observation": x, "is_init": torch.zeros(6, 1, dtype=torch.bool)}
    values["particle"] = torch.tensor([0, 1, 2, 2, 1, 0]).unsqueeze(-1)
    for actor in (discrete, samplers):
        with set_exploration_type(DETERMINISTIC):
            each = [EnsemblePolicy(actor, "best", best=i)(observation=x) for i in range(N)]
            action, particle = EnsemblePolicy(actor, "random")(**values)
        assert torch.equal(particle, values["particle"])
        want = torch.stack([each[particle[row, 0]][row] for row in range(6)])
        torch.testing.assert_close(action, want)


def test_behind_transforms_as_in_the_tutorial_of_torchrl():
    actor = AmortizedSVGDActor(MLP(5, 2), action_spec=Bounded(-1.0, 1.0, (2,)))
    scale = TensorDictModule(lambda x: x / 255, ["raw"], ["observation"])
    policy = TensorDictSequential(scale, actor).select_out_keys("action")
    with set_exploration_type(DETERMINISTIC):
        program = export(policy, {"raw": torch.rand(4, 3)}, 1).module()
        raw = torch.rand(7, 3)
        assert torch.equal(program(raw=raw), actor(observation=raw / 255))


class Pixels(nn.Module):
    def __init__(self):
        super().__init__()
        self.eye, self.head = (
            ConvNet(1, num_cells=[4], kernel_sizes=3, strides=2),
            MLP(4 * 9 + 2, 2),
        )

    def forward(self, pixels, noise):
        return self.head(self.eye(pixels), noise)


class Patches(nn.Module):
    """Images without a convolution."""

    def __init__(self):
        super().__init__()
        self.head = MLP(64 + 2, 2)

    def forward(self, pixels, noise):
        return self.head(pixels.flatten(-3), noise)


@pytest.mark.parametrize(("network", "options"), [(Pixels, {}), (Patches, {"observation_dims": 3})])
@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_images_without_a_batch_size(network, options, batch):
    spec = Bounded(-1.0, 1.0, (2,))
    actor = AmortizedSVGDActor(network(), action_spec=spec, in_keys=["pixels"], **options)
    pixels = torch.rand(*batch, 1, 8, 8)
    with set_exploration_type(DETERMINISTIC):
        want = actor(TensorDict({"pixels": pixels}, batch))["action"]
        assert torch.equal(actor(pixels=pixels), want)
    assert want.shape == (*batch, 2)


def test_a_vector_says_what_is_batch_of_images():
    class Both(Pixels):
        def forward(self, pixels, vector, noise):
            return self.head(self.eye(pixels), noise) + vector

    actor = AmortizedSVGDActor(
        Both(), action_spec=Bounded(-1.0, 1.0, (2,)), in_keys=["pixels", "vector"]
    )
    assert actor(pixels=torch.rand(5, 1, 8, 8), vector=torch.rand(5, 2)).shape == (5, 2)


def test_the_signature_names_the_inputs():
    case = Case("random", [3, 2], Bounded(-1.0, 1.0, (2,)), {}, "mlp")
    names = list(inspect.signature(case.make().forward).parameters)
    assert names == ["tensordict", "observation", "agent_state", "is_init", "particle"]


@pytest.mark.parametrize("kind", ["amortized", "best"])
def test_other_keywords_are_refused(kind):
    actor = Case(kind, [3], Bounded(-1.0, 1.0, (2,)), {}, "mlp").make()
    message = r"keywords must be among \['observation'\], got \['obs'\]"
    with pytest.raises(TypeError, match=f"{type(actor).__name__}: {message}"):
        actor(obs=torch.zeros(4, 3))
    with pytest.raises(TypeError, match=message):
        actor(TensorDict({"observation": torch.zeros(4, 3)}, [4]), obs=torch.zeros(4, 3))


ALONE = """
import sys
from pathlib import Path
for name in ("torchrl_stein", "torchrl", "tensordict"):
    sys.modules[name] = None  # whoever imports it fails
import torch
programs = sorted(Path().glob("*.pt2"))
for path in programs:
    values, want = torch.load(path.with_suffix(".pt"))
    got = torch.export.load(path).module()(**values)
    assert torch.equal(got, want), (path, got, want)
print(len(programs))
"""


def test_saved_programs_need_no_library(tmp_path):
    for kind in ("amortized", "gaussian", "mixture", "best", "mean"):
        case = Case(kind, [3, 2], Bounded(-1.0, 1.0, (2,)), {}, "film")
        actor, values = case.make(), case.inputs((6,))
        with set_exploration_type(DETERMINISTIC), torch.no_grad():
            torch.export.save(export(actor, case.inputs((4,)), 1), tmp_path / f"{kind}.pt2")
            torch.save((values, actor(**values)), tmp_path / f"{kind}.pt")
    result = subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True, cwd=tmp_path
    )
    assert result.stdout.strip() == "5", result.stderr


@pytest.mark.parametrize("kind", ["amortized", "gaussian", "mixture", "best", "mean"])
def test_onnx(kind, tmp_path):
    pytest.importorskip("onnxscript")
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
    case = Case(kind, [3, 2], Bounded(-1.0, torch.tensor([1.0, 3.0]), (2,)), {}, "film")
    actor, values = case.make(), case.inputs((6,))
    batch = {0: torch.export.Dim("batch")}
    with set_exploration_type(DETERMINISTIC), torch.no_grad():
        torch.onnx.export(
            actor,
            (),
            tmp_path / "policy.onnx",
            kwargs=case.inputs((4,)),
            dynamic_shapes=dict.fromkeys(values, batch),
            dynamo=True,
            verbose=False,
        )
        want = actor(**values)
    model = evaluator(str(tmp_path / "policy.onnx"))
    (got,) = model.run(None, {name: value.numpy() for name, value in values.items()})
    torch.testing.assert_close(torch.from_numpy(got), want, atol=1e-6, rtol=1e-5)
