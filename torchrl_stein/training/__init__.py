"""What recipes share: runs, loggers, checkpoints, evaluation, the off-policy loop, figures."""

from .checkpoint import (
    Checkpoints,
    check_same_problem,
    find_checkpoint,
    load_weights,
    read_metadata,
)
from .evaluation import Episodes, play_episodes
from .guards import StopFlag, catch_interrupt, check_losses
from .multigoal import evaluate_multigoal, multigoal_metrics
from .multigoal_figure import PROBE_STATES, draw_multigoal
from .networks import make_mlp, make_uniform_explorer
from .off_policy import train_off_policy
from .off_policy_agent import OffPolicyAgent, OffPolicySettings
from .off_policy_run import evaluate_agent, run_off_policy_recipe
from .on_policy import OnPolicySettings, return_metrics, train_on_policy
from .optimizer import linear_schedule, make_optimizer, make_updaters
from .population import (
    PopulationAgent,
    make_gaussian_actor,
    make_linear_critic,
    training_returns,
)
from .population_figures import (
    LearningCurves,
    draw_learning_curves,
    draw_sorted_returns,
    draw_state_densities,
    mean_interval,
    mode_colours,
)
from .population_run import train_population
from .progress import Progress
from .resume import resumed_config
from .run import Run, spawn_seeds
from .selection import best_particle, evaluate_particles, load_actor
from .tasks import make_task
from .trust_region import TrustRegion, make_trust_region
from .wandb_logger import open_wandb
from .world_collector import WorldCollector

__all__ = [
    "PROBE_STATES",
    "Checkpoints",
    "Episodes",
    "LearningCurves",
    "OffPolicyAgent",
    "OffPolicySettings",
    "OnPolicySettings",
    "PopulationAgent",
    "Progress",
    "Run",
    "StopFlag",
    "TrustRegion",
    "WorldCollector",
    "best_particle",
    "catch_interrupt",
    "check_losses",
    "check_same_problem",
    "draw_learning_curves",
    "draw_multigoal",
    "draw_sorted_returns",
    "draw_state_densities",
    "evaluate_agent",
    "evaluate_multigoal",
    "evaluate_particles",
    "find_checkpoint",
    "linear_schedule",
    "load_actor",
    "load_weights",
    "make_gaussian_actor",
    "make_linear_critic",
    "make_mlp",
    "make_optimizer",
    "make_task",
    "make_trust_region",
    "make_uniform_explorer",
    "make_updaters",
    "mean_interval",
    "mode_colours",
    "multigoal_metrics",
    "open_wandb",
    "play_episodes",
    "read_metadata",
    "resumed_config",
    "return_metrics",
    "run_off_policy_recipe",
    "spawn_seeds",
    "train_off_policy",
    "train_on_policy",
    "train_population",
    "training_returns",
]
