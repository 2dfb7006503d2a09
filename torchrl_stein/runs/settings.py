"""Typed settings: what Hydra composes for a recipe, checked before torch takes its seconds.

A recipe's settings are a class whose fields have types and ranges; values and explanations stand in
``recipes/conf``. Imports neither torch nor the package, so that a refusal takes a second.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from .command_line import SettingsError, first_line, no_such_setting, resumed_values
from .command_line import check_command_line as check_command_line  # for recipes
from .targets import check_environment, check_targets

if TYPE_CHECKING:
    from omegaconf import DictConfig

WORLDS = (
    "cartpole",
    "cartpole_swingup",
    "double_pendulum",
    "goal_maze_hard",
    "goal_maze_medium",
    "goal_maze_simple",
    "mountain_car",
    "multigoal",
    "simple_spread",
)
"""The batched worlds of this package; all other tasks are simulators, one after the other."""

MULTI_AGENT_WORLDS = ("simple_spread",)
"""Those in which several agents act, which maddpg.py takes and no other recipe."""

# Of things that are held in memory, and of things that are counted while time passes.
Count = Annotated[int, Field(ge=1, le=10**7)]
Steps = Annotated[int, Field(ge=1, le=10**12)]
Index = Annotated[int, Field(ge=0, le=10**12)]
OneSeed = Annotated[int, Field(ge=1, le=1)]
Positive = Annotated[float, Field(gt=0, le=1e12)]
NonNegative = Annotated[float, Field(ge=0, le=1e12)]
Number = Annotated[float, Field(ge=-1e12, le=1e12)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Words = Annotated[str, Field(min_length=1)]
Cells = list[Annotated[int, Field(ge=1, le=65536)]]


class Section(BaseModel):
    """Settings with types and ranges: no other names, no conversions, no NaN, no infinity."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, populate_by_name=True
    )


def _target(value: Any) -> Any:
    if not isinstance(value, Mapping) or not isinstance(value.get("_target_"), str):
        raise ValueError("a section with a _target_, the name of a class")
    check_targets(value)
    return dict(value)


def _task(name: str) -> str:
    if ":" in name:  # gymnasium would import the module before the colon
        raise ValueError("the id of a registered environment, without a colon")
    if name in MULTI_AGENT_WORLDS:
        raise ValueError("a task of one agent; those of several are for maddpg.py")
    return name


Task = Annotated[Words, AfterValidator(_task)]
Target = Annotated[dict[str, Any], BeforeValidator(_target)]
"""The name of a class and its arguments, see :func:`torchrl_stein.runs.build`."""


class Success(Section):
    """When an episode counts as a success: by the last value of an entry."""

    entry: Words
    above: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError("an entry and one of above and below, as in 'distance < 4.9'")
        return self


def _success(value: Any) -> Any:
    if value is None or isinstance(value, Mapping | Success):
        return value
    found = re.fullmatch(r"\s*([\w/.]+)\s*([<>])\s*([-+.\deE]+)\s*", str(value))
    if found is None:
        raise ValueError("an entry, < or >, and a number, as in 'distance < 4.9'")
    entry, sign, number = found.groups()
    try:
        return {"entry": entry, "above" if sign == ">" else "below": float(number)}
    except ValueError:
        raise ValueError("a number behind < or >, as in 'distance < 4.9'") from None


class Environment(Section):
    """Of an off-policy recipe: a task by its name, or an environment class of TorchRL."""

    name: Task
    num_envs: Annotated[int, Field(ge=1, le=10**6)]
    options: dict[str, Any]
    info: list[Words]
    target: Words | None = Field(alias="_target_")
    batch_argument: Literal["num_envs", "batch_size"] | None

    discrete: ClassVar[bool | None] = False  # actions, else a box; None: either

    @model_validator(mode="after")
    def _harmless(self) -> Self:
        if self.target is not None:
            check_environment(self.target, self.options)
        return self


class DiscreteEnvironment(Environment):
    """The same, with finitely many actions."""

    discrete: ClassVar[bool | None] = True


class AnyActions(Environment):
    """The same, with a box of actions or finitely many."""

    discrete: ClassVar[bool | None] = None


class MultiAgentEnvironment(Environment):
    """A world of several agents by its name."""

    name: Literal["simple_spread"]
    target: None = Field(alias="_target_")
    batch_argument: None


class Evaluation(Section):
    """Episodes that are played during and after training."""

    episodes: Annotated[int, Field(ge=1, le=10**6)]
    final_episodes: Annotated[int, Field(ge=1, le=10**6)]
    max_steps: Annotated[int, Field(ge=1, le=10**7)]
    video_steps: Annotated[int, Field(ge=0, le=10**6)]


class TaskEvaluation(Evaluation):
    """Evaluation of a recipe that trains one policy; it can count successes."""

    deterministic: bool
    best_of: Annotated[int, Field(ge=0, le=10**5)] = 0  # of recipes whose policy is a sampler
    success: Annotated[Success | None, BeforeValidator(_success)]


class Network(Section):
    """Hidden layers."""

    num_cells: Cells


class CriticNetwork(Network):
    """Hidden layers, and what normalizes those of the critics."""

    norm: Literal["layer", "batch_renorm"] | None = None


class OffPolicyTraining(Section):
    """Numbers of the loop; frames are environment steps, summed over all environments."""

    total_frames: Steps
    warmup_frames: Index
    updates_per_step: Annotated[int, Field(ge=1, le=10**4)]
    batch_size: Annotated[int, Field(ge=1, le=10**7)]
    buffer_size: Annotated[int, Field(ge=1, le=10**9)]
    reward_scale: Positive | Literal["auto"]
    log_interval: Steps
    eval_interval: Steps
    checkpoint_interval: Steps

    @model_validator(mode="after")
    def _updates(self) -> Self:
        if self.total_frames <= self.warmup_frames:
            raise ValueError(
                "total_frames above warmup_frames, or there is no update; "
                f"they are {self.total_frames} and {self.warmup_frames}"
            )
        return self

    @property
    def temperature_scale(self) -> float:
        """The factor on temperatures: (alpha, r) and (c alpha, c r) are the same problem.

        With the running scale of rewards a temperature is in units of the scaled reward.
        """
        return 1.0 if self.reward_scale == "auto" else self.reward_scale


class CriticOptim(Section):
    """The critics' rate of Adam, and how targets follow."""

    lr_qvalue: Positive
    final_lr_fraction: Fraction
    target_update_interval: Steps | None
    target_tau: Rate | None

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.target_update_interval is None) == (self.target_tau is None):
            raise ValueError(
                "one of target_update_interval and target_tau, the other null; "
                f"they are {self.target_update_interval} and {self.target_tau}"
            )
        return self


class OffPolicyOptim(CriticOptim):
    """The same, and the actor's rate."""

    lr_actor: Positive


class LearntAlphaOptim(OffPolicyOptim):
    """The same of an algorithm that may learn its temperature."""

    lr_alpha: Positive


class CrossQOptim(LearntAlphaOptim):
    """The same, and Adam's beta_1, for which CrossQ has its own value."""

    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9  # of runs that were saved without it


class Exploration(Section):
    """Noise on actions while data are collected."""

    noise: NonNegative = 0.0
    theta: Rate | None = None
    uniform_fraction: Fraction
    hold: Annotated[int, Field(ge=0, le=10**4)] = 0  # of recipes whose policy is a sampler

    @model_validator(mode="after")
    def _noise_to_drive(self) -> Self:
        if self.theta is not None and self.noise == 0:
            raise ValueError(f"noise above 0 where theta is given; they are 0 and {self.theta}")
        return self


class DeterministicExploration(Exploration):
    """The same for a deterministic policy, whose parameters may have the noise."""

    parameter_noise: NonNegative = 0.0


class BaselineLoss(Section):
    """The discount, and what tasks set for soft Q-learning, which the others do not read."""

    gamma: Fraction
    temperature: Positive | None = None
    fixed_alpha: bool | None = None
    num_action_samples: Count | None = None
    num_value_samples: Count | None = None
    value_target: Words | None = None
    num_qvalue_nets: Count | None = None


class TrustRegion(Section):
    """A Wasserstein trust region between a policy and its predecessor."""

    weight: NonNegative
    cost: Target
    tau: Rate | None


class ActionTrustRegion(TrustRegion):
    """A trust region that compares actions sampled at each state."""

    num_action_samples: Annotated[int, Field(ge=1, le=4096)]


class Annealing(Section):
    """Towards a deterministic policy, for fine-tuning."""

    updates: Index
    temperature: Positive
    noise_set_size: Annotated[int, Field(ge=1, le=10**6)]


class Compile(Section):
    """How the tensor work of an update runs; the names are those of TorchRL's scripts."""

    compile: bool
    compile_mode: (
        Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None
    )
    cudagraphs: bool

    @model_validator(mode="after")
    def _graphs_once(self) -> Self:
        if self.cudagraphs and self.compile_mode in ("reduce-overhead", "max-autotune"):
            raise ValueError(
                "a compile_mode that makes no CUDA graphs itself together with cudagraphs; it is "
                f"{self.compile_mode}"
            )
        return self


class RecipeSettings(Section):
    """What every training recipe has."""

    recipe: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)]
    device: str
    threads: Annotated[int, Field(ge=1, le=1024)]
    logger: Literal["csv", "tensorboard", "wandb", "none"]
    resume: Words | None
    run_dir: Words | None

    @field_validator("device")
    @classmethod
    def _known(cls, name: str) -> str:
        if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
            raise ValueError("cpu, cuda or cuda:NUMBER")
        return name

    @field_validator("logger")
    @classmethod
    def _installed(cls, name: str) -> str:
        packages = {"tensorboard": "tensorboard", "wandb": "wandb"}
        if name in packages and importlib.util.find_spec(packages[name]) is None:
            raise ValueError(f"a logger that is installed: pip install {packages[name]}")
        return name

    @model_validator(mode="after")
    def _graphs_need_cuda(self) -> Self:
        section = getattr(self, "compile", None)
        if isinstance(section, Compile) and section.cudagraphs and self.device == "cpu":
            raise ValueError("compile.cudagraphs with device=cuda; the device is cpu")
        return self

    @property
    def task(self) -> str:
        """A label for the directory of the run."""
        env = getattr(self, "env", "run")
        return env.name if isinstance(env, Environment) else str(env)

    @classmethod
    def read(cls, cfg: DictConfig | Self) -> Self:
        """The settings that Hydra composed, of a resumed run its own; a wrong one ends it all.

        Settings that were read already are given back, so that ``main(settings)`` runs a recipe.
        """
        if isinstance(cfg, cls):
            return cfg
        from hydra.core.hydra_config import HydraConfig

        try:
            return cls.of_composed(cfg, HydraConfig.get().overrides.task)  # type: ignore[arg-type]
        except (SettingsError, FileNotFoundError) as error:
            sys.exit(f"{cfg.recipe}.py: {error}")

    @classmethod
    def of_composed(cls, cfg: DictConfig, overrides: Sequence[str]) -> Self:
        """The settings of a composed config, or SettingsError.

        ``overrides`` are those of the command line, which change the settings of a resumed run.
        """
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            name = f"{error.full_key}: " if error.full_key else ""
            raise SettingsError(f"{name}{first_line(error)}") from error
        assert isinstance(values, dict)
        plain = {str(name): value for name, value in values.items()}
        if cls.can_resume() and isinstance(plain.get("resume"), str) and plain["resume"]:
            plain = resumed_values(cls, plain, overrides)
        return cls.parse(plain)

    @classmethod
    def can_resume(cls) -> bool:
        """Whether checkpoints of the recipe hold all that a run needs to go on."""
        return cls.model_fields["resume"].annotation is not type(None)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Settings from plain values; SettingsError for the first wrong one."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise SettingsError(_explain(error, _names(cls))) from None

    def plain(self) -> dict[str, Any]:
        """As plain values, for files: :meth:`parse` reads them again."""
        return self.model_dump(mode="json", by_alias=True)


class TaskSettings(RecipeSettings):
    """What recipes share that train one policy, or one for each of several seeds."""

    seeds: Annotated[int, Field(ge=1, le=1000)]
    env: Environment
    network: Network
    eval: TaskEvaluation
    compile: Compile

    @model_validator(mode="after")
    def _success_of_what_is_recorded(self) -> Self:
        rule, info = self.eval.success, self.env.info
        if rule is not None and rule.entry not in info:
            raise ValueError(
                f"eval.success about an entry of env.info, which is {info}, got {rule.entry!r}"
            )
        return self

    @property
    def leading(self) -> tuple[int, ...]:
        """``()``, or ``(S,)`` for S seeds: the first dimension of networks and data."""
        return () if self.seeds == 1 else (self.seeds,)


class OffPolicySettings(TaskSettings):
    """What the off-policy recipes share, see ``recipes/conf/off_policy.yaml``."""

    init_from: Words | None
    training: OffPolicyTraining
    optim: CriticOptim

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.seeds > 1 and self.training.reward_scale == "auto":
            raise ValueError("seeds=1 with training.reward_scale=auto, whose scale is one for all")
        if self.training.buffer_size < self.env.num_envs:
            raise ValueError(
                f"training.buffer_size of at least env.num_envs; they are "
                f"{self.training.buffer_size} and {self.env.num_envs}"
            )
        return self

    @property
    def num_updates(self) -> int:
        """Gradient steps of the whole run, the same for every seed."""
        training, rows = self.training, self.env.num_envs
        steps = -(-training.total_frames // rows) - training.warmup_frames // rows
        return steps * training.updates_per_step


class DeterministicSettings(OffPolicySettings):
    """The same of DDPG and TD3, whose policies are deterministic."""

    optim: OffPolicyOptim
    exploration: DeterministicExploration

    @model_validator(mode="after")
    def _one_scale(self) -> Self:
        if self.seeds > 1 and self.exploration.parameter_noise > 0:
            raise ValueError(
                "seeds=1 with exploration.parameter_noise above 0, whose scale is one for all; it "
                f"is {self.exploration.parameter_noise}"
            )
        return self


class OnPolicyNetwork(Network):
    """Hidden layers, and whether observations are normalized before them."""

    normalize: bool


class OnPolicyTraining(Section):
    """Numbers of the loop; intervals count iterations, which are batches of data."""

    total_frames: Steps
    steps: Annotated[int, Field(ge=1, le=10**6)]
    reward_scale: Positive | Literal["auto"]
    log_interval: Steps
    eval_interval: Steps
    checkpoint_interval: Steps


class OnPolicyOptim(Section):
    """Adam, and the largest norm of a gradient."""

    lr: Positive
    final_lr_fraction: Fraction
    max_grad_norm: Positive


class OnPolicySettings(TaskSettings):
    """What a2c.py and ppo.py share, see ``recipes/conf/on_policy.yaml``."""

    seeds: OneSeed
    env: AnyActions
    network: OnPolicyNetwork
    training: OnPolicyTraining
    optim: OnPolicyOptim

    @property
    def iterations(self) -> int:
        """Batches of data of the whole run."""
        return -(-self.training.total_frames // (self.env.num_envs * self.training.steps))


class PopulationTraining(Section):
    """Numbers of the loop; intervals count iterations, which are batches of data."""

    iterations: Steps
    steps: Annotated[int, Field(ge=1, le=10**6)]
    log_interval: Steps
    eval_interval: Steps
    checkpoint_interval: Steps


class Population(Section):
    """How many policies, and how much data each has."""

    num_particles: Annotated[int, Field(ge=1, le=10**5)]
    envs_per_particle: Annotated[int, Field(ge=1, le=10**6)]
    num_cells: Cells


class PopulationLoss(Section):
    """Arguments of SteinPolicyLoss and of the advantages."""

    temperature: NonNegative
    final_temperature: Positive | None
    gamma: Fraction
    lmbda: Fraction


class PopulationOptim(Section):
    """Rate of Adam."""

    lr: Positive


class BirthDeathSettings(Section):
    """Arguments of BirthDeath."""

    interval: Count
    scale: Positive
    jitter: Positive


class PopulationSettings(RecipeSettings):
    """What the recipes of populations share, see ``recipes/conf/svpg.yaml``."""

    env: Task
    env_options: dict[str, Any]
    population: Population
    training: PopulationTraining
    eval: Evaluation

    @property
    def environment(self) -> Environment:
        """The task as the off-policy recipes describe theirs."""
        return Environment(
            name=self.env,
            num_envs=self.population.envs_per_particle,
            options=self.env_options,
            info=[],
            _target_=None,
            batch_argument=None,
        )


# What pydantic calls an error, in our words.
_WANTED = {
    "bool_type": "true or false",
    "dict_type": "a section",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_from_float": "an integer",
    "int_type": "an integer",
    "list_type": "a list",
    "model_type": "a section",
    "none_required": "null",
    "string_too_short": "a word that is not empty",
    "string_type": "a word",
    "too_short": "a list that is not empty",
}
_CHOICES = {"bool", "float", "int", "none", "str"}  # of types, which pydantic shows as places


def _explain(error: ValidationError, known: Sequence[str]) -> str:
    """The first fault in one line: the setting, what was expected, what came."""
    first = error.errors(include_url=False)[0]
    places = [str(part) for part in first["loc"]]
    name = ".".join(part for part in places if part not in _CHOICES and "-" not in part)
    if first["type"] == "extra_forbidden":
        return no_such_setting(name, known)
    if first["type"] == "missing":
        return f"setting {name} is missing"
    wanted = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    wanted = _WANTED.get(first["type"], wanted)
    if first["type"] == "value_error" and isinstance(first["input"], Mapping | BaseModel):
        if " must be " in wanted:  # a whole sentence
            return wanted if wanted.startswith(name) else f"{name}: {wanted}"
        return f"{name}: expected {wanted}" if name else f"expected {wanted}"
    got = "null" if first["input"] is None else repr(first["input"])
    return f"{name} must be {wanted}, got {got if len(got) < 80 else got[:77] + '...'}"


def _names(settings: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in settings.model_fields.items():
        found.append(f"{prefix}{field.alias or name}")
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += _names(kind, f"{prefix}{name}.")
    return found
