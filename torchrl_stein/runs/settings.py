"""Typed settings: what Hydra composes for a recipe, checked before torch takes its seconds.

A recipe declares its settings as a class whose fields have types and ranges; the values and their
explanations stand in ``recipes/conf``. This module imports neither torch nor the package, so that
``--help`` and a refusal of a wrong setting take a second.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = [
    "ActionTrustRegion",
    "Annealing",
    "BaselineLoss",
    "BirthDeathSettings",
    "Compile",
    "Count",
    "Environment",
    "Evaluation",
    "Exploration",
    "Fraction",
    "Index",
    "NonNegative",
    "OffPolicyOptim",
    "OffPolicySettings",
    "OffPolicyTraining",
    "PopulationLoss",
    "PopulationOptim",
    "PopulationSettings",
    "Positive",
    "RecipeSettings",
    "Section",
    "SettingsError",
    "Success",
    "Target",
    "TrustRegion",
    "check_command_line",
]

WORLDS = ("cartpole", "cartpole_swingup", "double_pendulum", "mountain_car", "multigoal")
"""The batched worlds of this package; all other tasks are simulators, one after the other."""

Count = Annotated[int, Field(ge=1, le=10**12)]
Index = Annotated[int, Field(ge=0, le=10**12)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class SettingsError(ValueError):
    """A wrong setting; the message is one line that names it, what was expected and what came."""


class Section(BaseModel):
    """Settings with types and ranges: no other names, no conversions, no NaN, no infinity."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, populate_by_name=True
    )


def _target(value: Any) -> Any:
    if not isinstance(value, Mapping) or not isinstance(value.get("_target_"), str):
        raise ValueError("a section with a _target_, the name of a class")
    return dict(value)


Target = Annotated[dict[str, Any], BeforeValidator(_target)]
"""The name of a class and its arguments, see :func:`torchrl_stein.runs.build`."""


class Success(Section):
    """When an episode counts as a success: by the last value of an entry."""

    entry: str
    above: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError("an entry and one of above and below, as in 'distance < 4.9'")
        return self


def _success(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([\w/.]+)\s*([<>])\s*(\S+)\s*", value)
    if match is None:
        raise ValueError("an entry, < or >, and a number, as in 'distance < 4.9'")
    entry, sign, number = match.groups()
    try:
        return {"entry": entry, "above" if sign == ">" else "below": float(number)}
    except ValueError as error:
        raise ValueError("an entry, < or >, and a number, as in 'distance < 4.9'") from error


class Environment(Section):
    """Of an off-policy recipe: a task by its name, or an environment class of TorchRL."""

    name: Annotated[str, Field(min_length=1)]
    num_envs: Annotated[int, Field(ge=1, le=10**6)]
    options: dict[str, Any]
    info: list[str]
    target: str | None = Field(alias="_target_")
    batch_argument: Literal["num_envs", "batch_size"] | None


class Evaluation(Section):
    """Episodes that are played during and after training."""

    episodes: Annotated[int, Field(ge=1, le=10**6)]
    final_episodes: Annotated[int, Field(ge=1, le=10**6)]
    max_steps: Annotated[int, Field(ge=1, le=10**7)]
    video_steps: Annotated[int, Field(ge=0, le=10**6)]


class OffPolicyEvaluation(Evaluation):
    """... of an off-policy recipe."""

    deterministic: bool
    success: Annotated[Success | None, BeforeValidator(_success)]


class Network(Section):
    """Hidden layers."""

    num_cells: list[Annotated[int, Field(ge=1, le=65536)]]


class OffPolicyTraining(Section):
    """Numbers of the loop; frames are environment steps, summed over all environments."""

    total_frames: Count
    warmup_frames: Index
    updates_per_step: Annotated[int, Field(ge=1, le=10**4)]
    batch_size: Annotated[int, Field(ge=1, le=10**7)]
    buffer_size: Annotated[int, Field(ge=1, le=10**9)]
    reward_scale: Positive
    log_interval: Count
    eval_interval: Count
    checkpoint_interval: Count

    @model_validator(mode="after")
    def _updates(self) -> Self:
        if self.total_frames <= self.warmup_frames:
            raise ValueError(
                "total_frames above warmup_frames, or there is no update; "
                f"they are {self.total_frames} and {self.warmup_frames}"
            )
        return self

    def updates(self, num_envs: int) -> int:
        """Number of gradient steps of the whole run."""
        steps = -(-self.total_frames // num_envs) - self.warmup_frames // num_envs
        return steps * self.updates_per_step


class OffPolicyOptim(Section):
    """Rates of Adam, and how targets follow."""

    lr_qvalue: Positive
    lr_actor: Positive
    final_lr_fraction: Fraction
    target_update_interval: Count | None
    target_tau: Annotated[float, Field(gt=0, le=1)] | None

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.target_update_interval is None) == (self.target_tau is None):
            raise ValueError(
                "one of target_update_interval and target_tau, the other null; "
                f"they are {self.target_update_interval} and {self.target_tau}"
            )
        return self


class Exploration(Section):
    """Noise on actions while data are collected."""

    noise: NonNegative
    theta: Annotated[float, Field(gt=0, le=1)] | None
    uniform_fraction: Fraction

    @model_validator(mode="after")
    def _noise_to_drive(self) -> Self:
        if self.theta is not None and self.noise == 0:
            raise ValueError(f"noise above 0 where theta is given; they are 0 and {self.theta}")
        return self


class BaselineLoss(Section):
    """Of an algorithm without a temperature: the discount, and what tasks set for the others."""

    gamma: Fraction
    temperature: Positive | None = None
    num_value_samples: Count | None = None


class TrustRegion(Section):
    """A Wasserstein trust region between a policy and its predecessor."""

    weight: NonNegative
    cost: Target
    tau: Annotated[float, Field(gt=0, le=1)] | None


class ActionTrustRegion(TrustRegion):
    """... over actions."""

    num_particles: Annotated[int, Field(ge=1, le=4096)]


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
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")]
    threads: Annotated[int, Field(ge=1, le=1024)]
    logger: Literal["csv", "tensorboard", "wandb", "none"]
    resume: Annotated[str, Field(min_length=1)] | None
    run_dir: Annotated[str, Field(min_length=1)] | None

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
    def read(cls, cfg: DictConfig) -> Self:
        """The settings that Hydra composed, and of a resumed run those that it had.

        Ends the process with one line where a setting is wrong.
        """
        from hydra.core.hydra_config import HydraConfig

        try:
            return cls._read(cfg, HydraConfig.get().overrides.task)
        except (SettingsError, FileNotFoundError) as error:
            sys.exit(f"{cfg.recipe}.py: {error}")

    @classmethod
    def _read(cls, cfg: DictConfig, overrides: Sequence[str]) -> Self:
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raise SettingsError(_first_line(error)) from error
        assert isinstance(values, dict)
        settings = cls.parse({str(name): value for name, value in values.items()})
        if settings.resume is None:
            return settings
        from .resume import resumed_settings

        return cls.parse(resumed_settings(settings, values, overrides))

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Settings from plain values.

        Raises:
            SettingsError: for the first wrong one.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise SettingsError(_explain(error, _names(cls))) from None

    def plain(self) -> dict[str, Any]:
        """As plain values, for files: :meth:`parse` reads them again."""
        return self.model_dump(mode="json", by_alias=True)


class OffPolicySettings(RecipeSettings):
    """What the off-policy recipes share, see ``recipes/conf/off_policy.yaml``."""

    init_from: Annotated[str, Field(min_length=1)] | None
    env: Environment
    network: Network
    training: OffPolicyTraining
    optim: OffPolicyOptim
    eval: OffPolicyEvaluation
    compile: Compile

    @property
    def num_updates(self) -> int:
        """Gradient steps of the whole run."""
        return self.training.updates(self.env.num_envs)


class PopulationTraining(Section):
    """Numbers of the loop; intervals count iterations, which are batches of data."""

    iterations: Count
    steps: Annotated[int, Field(ge=1, le=10**6)]
    log_interval: Count
    eval_interval: Count
    checkpoint_interval: Count


class Population(Section):
    """How many policies, and how much data each has."""

    num_particles: Annotated[int, Field(ge=1, le=10**5)]
    envs_per_particle: Annotated[int, Field(ge=1, le=10**6)]
    num_cells: list[Annotated[int, Field(ge=1, le=65536)]]


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
    temperature: Positive
    jitter: Positive


class PopulationSettings(RecipeSettings):
    """What the recipes of populations share, see ``recipes/conf/svpg.yaml``."""

    env: Annotated[str, Field(min_length=1)]
    env_options: dict[str, Any]
    population: Population
    training: PopulationTraining
    eval: Evaluation
    compile: Compile

    @property
    def environment(self) -> Environment:
        """The task as the off-policy recipes describe theirs."""
        return Environment(
            name=self.env,
            num_envs=self.population.envs_per_particle,
            options=self.env_options,
            info=[],
            target=None,
            batch_argument=None,
        )


def check_command_line(script: str, settings: type[RecipeSettings], description: str) -> None:
    """Answer ``--help``, and refuse a wrong command line with one line.

    A recipe calls it before it imports torch. What is left for Hydra is right, except for values
    of ``--multirun``, which :meth:`RecipeSettings.read` looks at one by one.

    Args:
        script: the recipe's ``__file__``; its settings are ``conf/NAME.yaml`` beside it.
        settings: their types.
        description: of the recipe, for ``--help``.
    """
    os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")  # torchrl reads it when it is imported
    name = Path(script).stem
    if "--trust" in sys.argv:  # typed by the user; Hydra does not know it
        from .targets import trust_all_targets

        sys.argv.remove("--trust")
        trust_all_targets()
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-cn", "--config-name", default=name)
    parser.add_argument("-m", "--multirun", action="store_true")
    arguments, rest = parser.parse_known_args()
    if any(argument.startswith("-") for argument in rest):
        return  # --cfg, --info, --hydra-help: Hydra answers these
    conf = Path(script).resolve().parent / "conf"
    try:
        cfg = _compose(conf, arguments.config_name, rest, multirun=arguments.multirun)
        if arguments.help:
            print(_help(description, conf, cfg))  # noqa: T201
            sys.exit(0)
        checked = settings._read(cfg, rest)
        _check_writable(checked.run_dir)
    except (SettingsError, FileNotFoundError) as error:
        sys.exit(f"{name}.py: {error}")


def _compose(conf: Path, config_name: str, overrides: list[str], *, multirun: bool) -> DictConfig:
    from hydra import compose, initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        if multirun:
            overrides = [o.input_line for o in parsed if not o.is_sweep_override()]
        with initialize_config_dir(str(conf), version_base="1.3"):
            return compose(config_name, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise SettingsError(_explain_hydra(error, conf, config_name, overrides)) from None


def _explain_hydra(error: Exception, conf: Path, config_name: str, overrides: list[str]) -> str:
    """One line of what Hydra says in several, and without its advice to add a plus."""
    from hydra import compose, initialize_config_dir

    text = _first_line(error)
    unknown = re.search(r"Could not (?:override|delete from config\.?) '?([^'\s]+)'?", text)
    if unknown is None:
        return text
    with initialize_config_dir(str(conf), version_base="1.3"):
        known = [name for name, _ in _leaves(compose(config_name, []))]
    return _no_such_setting(unknown[1].lstrip("+~"), known)


def _leaves(cfg: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if hasattr(cfg, "items_ex"):  # a section of OmegaConf, whose values may wait for others
        for key, value in cfg.items_ex(resolve=False):
            yield f"{prefix}{key}", value
            yield from _leaves(value, f"{prefix}{key}.")


def _names(settings: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in settings.model_fields.items():
        found.append(f"{prefix}{field.alias or name}")
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += _names(kind, f"{prefix}{name}.")
    return found


def _no_such_setting(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 1, 0.6)
    return f"there is no setting {name}" + (f"; did you mean {close[0]}?" if close else "")


def _explain(error: ValidationError, known: Sequence[str]) -> str:
    """The first fault in one line: the setting, what was expected, what came."""
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"] if not str(part).startswith("function-"))
    if first["type"] == "extra_forbidden":
        return _no_such_setting(name, known)
    if first["type"] == "missing":
        return f"setting {name} is missing"
    wanted = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if first["type"] == "value_error" and not isinstance(first["input"], str | int | float):
        return f"{name}: expected {wanted}" if name else f"expected {wanted}"
    got = repr(first["input"])
    return f"{name} must be {wanted}, got {got if len(got) < 80 else got[:77] + '...'}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _check_writable(run_dir: str | None) -> None:
    place = Path("runs" if run_dir is None else run_dir).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise SettingsError(f"run_dir must be a directory, but {place} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise SettingsError(f"run_dir must be a place that can be written, {place} cannot")


def _help(description: str, conf: Path, cfg: DictConfig) -> str:
    from omegaconf import OmegaConf

    groups = [
        f"  {folder.name}: {', '.join(sorted(file.stem for file in folder.glob('*.yaml')))}"
        for folder in sorted(conf.iterdir())
        if folder.is_dir()
    ]
    return "\n".join(
        [
            description.strip(),
            "",
            "Groups of settings, GROUP=CHOICE:",
            *groups,
            "",
            f"Settings, NAME=VALUE, explained in {conf.name}/:",
            "",
            OmegaConf.to_yaml(cfg),
            "Also: --config-name NAME (another file of conf), --multirun (x=1,2,3: one run after",
            "the other), --trust (build any class that a _target_ names), --cfg job, --hydra-help.",
            "Exit codes: 0 complete, 1 refused or failed, 130 interrupted (143 by SIGTERM).",
        ]
    )
