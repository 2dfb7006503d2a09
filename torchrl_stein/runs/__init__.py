"""What stands around a training loop; the loop itself stands in the recipe.

Names are imported when they are asked for: settings and ``--help`` need no torch.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "checkpoint": "find_checkpoint read_component read_manifest",
    "collect": "WorldCollector make_reward_scaling",
    "compile": "compiled",
    "evaluation": "base_env evaluate goal_maze_metrics multigoal_metrics play_episodes",
    "networks": (
        "NORMS ObservationScale make_actor_critic make_explorer make_gaussian_actor "
        "make_linear_critic make_mlp make_parameter_noise make_trust_region"
    ),
    "pictures": "draw_run kernel_image",
    "populations": (
        "estimate_advantages finish_returns inherit_returns log_best_episode log_returns log_test "
        "make_kernel make_population_collector mean_action_returns return_metrics training_returns"
    ),
    "process": "prepare_cpu spawn_seeds",
    "saved": (
        "best_particle evaluate_particles load_actor load_loss load_pretrained read_population"
    ),
    "seeds": "SeedFolders SeedsSACLoss one_per_seed rows_of_seeds seeds_of_rows",
    "session": "Session",
    "targets": "build",
    "tasks": "make_configured_task make_task",
    "video": "log_episode",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME_OF, key=lambda name: (not name.isupper(), name[0].islower(), name))


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
