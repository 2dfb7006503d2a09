"""From the command line to plain values: Hydra composes, and every fault is one line; no torch."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .targets import trust_all_targets

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from .settings import RecipeSettings

__all__ = ["SettingsError", "check_command_line", "no_such_setting", "resumed_values"]

# Hydra answers these by itself.
_OF_HYDRA = {"--cfg", "-c", "--config-dir", "-cd", "--config-path", "-cp", "--hydra-help", "--info"}
_OF_HYDRA |= {"-i", "--package", "-p", "--resolve", "--run", "-r", "--shell-completion", "-sc"}
_OF_HYDRA |= {"--experimental-rerun", "--version"}

# What may change from one part of a run to the next. All else is part of what is trained: a rate
# of learning, for one, lives in the state of the optimizer.
_MAY_CHANGE = re.compile(
    r"(device|threads|logger|run_dir|resume|env\.num_envs|eval\..*|compile\..*"
    r"|training\.(total_frames|iterations|batch_size|updates_per_step|\w+_interval))$"
)


class SettingsError(ValueError):
    """A wrong setting; the message is one line that names it, what was expected and what came."""


def check_command_line(script: str, settings: type[RecipeSettings], description: str) -> None:
    """Answer ``--help``, and refuse a wrong command line with one line, before torch is imported.

    What is left for Hydra is right, except for values of ``--multirun``, which
    :meth:`RecipeSettings.read` looks at one by one. Settings of a ``script``, a recipe's
    ``__file__``, are ``conf/NAME.yaml`` beside it.
    """
    os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")  # torchrl reads it when it is imported
    name = Path(script).stem
    if "--trust" in sys.argv:  # Hydra does not know it
        sys.argv.remove("--trust")
        trust_all_targets()
    try:
        _check(Path(script).resolve().parent / "conf", name, settings, description)
    except (SettingsError, FileNotFoundError) as error:
        sys.exit(f"{name}.py: {error}")


def _check(conf: Path, name: str, settings: type[RecipeSettings], description: str) -> None:
    from .checkpoint import check_directory

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-cn", "--config-name", default=name)
    parser.add_argument("-m", "--multirun", action="store_true")
    try:
        arguments, overrides = parser.parse_known_args()
    except argparse.ArgumentError as error:
        raise SettingsError(str(error)) from None
    options = {argument.split("=")[0] for argument in overrides if argument.startswith("-")}
    if options - _OF_HYDRA:
        unknown = min(options - _OF_HYDRA)
        raise SettingsError(f"there is no option {unknown}; settings are NAME=VALUE, see --help")
    if options:
        return
    cfg = compose_settings(conf, arguments.config_name, overrides, multirun=arguments.multirun)
    if arguments.help:
        print(_help(description, conf, cfg))  # noqa: T201
        sys.exit(0)
    checked = settings.of_composed(cfg, overrides)
    if checked.resume is not None and arguments.config_name != name:
        raise SettingsError("resume: a run has its own settings, --config-name cannot be given")
    check_directory(checked)


def compose_settings(
    conf: Path, config_name: str, overrides: Sequence[str], *, multirun: bool = False
) -> DictConfig:
    """What Hydra makes of a command line, without the values that ``--multirun`` goes through."""
    from hydra import compose, initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    given = list(overrides)
    try:
        parsed = OverridesParser.create().parse_overrides(given)
    except OverrideParseException as error:
        name, _, value = str(error.override).partition("=")
        wanted = "expected NAME=VALUE"
        if name and re.fullmatch(r"[^\[\](){}$\"']*[<> ][^\[\](){}$\"']*", value):
            wanted = f"a value with spaces or signs is quoted twice, '{name}=\"{value}\"'"
        elif value:
            wanted += ", with quotes and brackets in pairs"
        raise SettingsError(f"{error.override}: {wanted}") from None
    for override in parsed:
        if not override.key_or_group:
            raise SettingsError(f"{override.input_line}: expected NAME=VALUE")
        if override.is_sweep_override():
            given.remove(str(override.input_line))
            if not multirun:
                raise SettingsError(
                    f"{override.key_or_group}: expected one value, got "
                    f"{override.get_value_string()}; several are for --multirun, a list is in [ ]"
                )
    try:
        with initialize_config_dir(str(conf), version_base="1.3"):
            return compose(config_name, given)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise SettingsError(_explain_hydra(error, conf, config_name, given)) from None


def resumed_values(
    settings: type[RecipeSettings], composed: Mapping[str, Any], overrides: Sequence[str]
) -> dict[str, Any]:
    """Settings of the run that ``resume`` names, changed by what was typed; or SettingsError.

    Args:
        settings: of the recipe.
        composed: what Hydra made of the command line: ``resume``, a checkpoint or the directory of
            a run, and the values of what was typed. Settings of the run are data, in which
            nothing like ``${...}`` is ever looked up.
        overrides: of the command line, ``["eval.episodes=10"]``.

    Returns:
        dict: plain values; ``resume`` is the absolute path of the checkpoint.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from .checkpoint import CheckpointError, find_checkpoint, read_manifest

    try:
        path = find_checkpoint(composed["resume"]).resolve()
        config = read_manifest(path)["config"]
    except (CheckpointError, FileNotFoundError) as error:
        raise SettingsError(f"resume: {error}") from error
    if config.get("recipe") != composed["recipe"]:
        raise SettingsError(
            f"resume: recipe is {config.get('recipe')} in the checkpoint, it cannot become "
            f"{composed['recipe']}"
        )
    try:
        saved = settings.parse(config).plain()
    except SettingsError as error:
        raise SettingsError(f"resume: {path}: {error}") from error
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        name = override.key_or_group
        if name.startswith("hydra"):
            continue
        found, value = _get(composed, name)
        if not found or override.is_delete() or "@" in name:
            raise SettingsError(f"resume: the run has no setting {name}, it cannot be given now")
        before = _get(saved, name)[1]
        if value != before and not _MAY_CHANGE.match(name):
            raise SettingsError(
                f"resume: {name} is {before} in the checkpoint, it cannot become {value}"
            )
        _set(saved, name, value)
    return saved | {"resume": str(path), "run_dir": composed.get("run_dir")}


def no_such_setting(name: str, known: Sequence[str]) -> str:
    """Say that there is none, and which one may be meant."""
    close = difflib.get_close_matches(name, known, 1, 0.6)
    return f"there is no setting {name}" + (f"; did you mean {close[0]}?" if close else "")


def first_line(error: BaseException) -> str:
    """The first line of a message that has several."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _explain_hydra(error: Exception, conf: Path, config_name: str, overrides: list[str]) -> str:
    """One line of what Hydra says in several, and without its advice to add a plus."""
    from hydra import compose, initialize_config_dir

    text = first_line(error)
    missing = re.search(r"Could not find '([^']+)/([^'/]*)'", text)
    if missing is None and "Config group override must be" in text:
        missing = re.search(r"(\w*)=(\S*)", text if "=" in text else " ".join(overrides))
    if missing is not None and missing[1] and (conf / missing[1]).is_dir():
        choices = ", ".join(sorted(file.stem for file in (conf / missing[1]).glob("*.yaml")))
        return f"{missing[1]} must be one of {choices}, got {missing[2]}"
    unknown = re.search(r"Could not (?:override|delete from config\.?|delete) '?([^'\s]+)'?", text)
    if unknown is not None:
        name = getattr(error.__cause__, "full_key", None) or unknown[1].lstrip("+~").split("=")[0]
        with initialize_config_dir(str(conf), version_base="1.3"):
            known = [each for each, _ in _leaves(compose(config_name, []))]
        if name in known:
            section = f"{name} has settings of its own, {name}.NAME=VALUE"
            return f"{name} cannot be deleted, it is null" if "delete" in text else section
        parent = name.rpartition(".")[0]
        has_class = f"{parent}._target_" in known and parent != "env"
        if parent.endswith("options") or has_class:
            return f"{parent} has no {name.removeprefix(parent)[1:]}; to add it: +{name}=VALUE"
        return no_such_setting(name, known)
    there = re.search(r"An item is already at '(\S+)'|^Multiple values for (\w+)\.", text)
    there = there or re.search(r"^(\w+) appears more than once in the final defaults", text)
    if there is not None:
        return f"{there[there.lastindex or 1]} is a setting already, leave out the +"
    names = [override.lstrip("+~").partition("=")[0] or "=" for override in overrides]
    about = [] if any(name in text for name in names) else overrides
    return ": ".join([*about, text])


def _leaves(cfg: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if hasattr(cfg, "items_ex"):  # a section of OmegaConf, whose values may wait for others
        for key, value in cfg.items_ex(resolve=False):
            yield f"{prefix}{key}", value
            yield from _leaves(value, f"{prefix}{key}.")


def _get(values: Mapping[str, Any], name: str) -> tuple[bool, Any]:
    current: Any = values
    for part in name.split("."):
        if not isinstance(current, Mapping) or part not in current:
            return False, None
        current = current[part]
    return True, current


def _set(values: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for part in sections:
        values = values.setdefault(part, {})
    values[last] = value


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
