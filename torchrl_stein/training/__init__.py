"""What recipes share: runs, loggers, checkpoints, evaluation, the off-policy loop, figures."""

from .checkpoint import (
    Checkpoints,
    check_same_problem,
    find_checkpoint,
    load_weights,
    read_metadata,
)
from .collector_state import CollectorState
from .composition import replayed_observations, sum_of_worlds, train_sampler
from .console import print_above, print_summary, progress_bar
from .evaluation import Episodes, episode_metrics, play_episodes
from .fine_tuning import Annealing, make_annealing
from .guards import StopFlag, catch_interrupt, check_losses, exit_if_unwritable
from .kernel_image import kernel_image, kernel_matrix
from .multigoal import draw_trained_agent, evaluate_multigoal, multigoal_metrics
from .multigoal_figure import PROBE_STATES, draw_multigoal
from .networks import make_explorer, make_mlp
from .off_policy import train_off_policy
from .off_policy_agent import OffPolicyAgent, OffPolicySettings
from .off_policy_run import evaluate_agent, run_off_policy_recipe
from .on_policy import OnPolicySettings, return_metrics, train_on_policy
from .optimizer import linear_schedule, make_optimizer, make_updaters
from .overrides import check_overrides
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
from .provenance import git_state, read_provenance
from .rendering import prepare_rendering
from .replay import ReplayState
from .resume import resumed_config
from .run import Run, spawn_seeds
from .seed_runs import SeedRuns, population_sizes
from .selection import best_particle, evaluate_particles, load_actor
from .tasks import make_configured_task, make_task
from .trust_region import TrustRegion, make_trust_region
from .video import log_episode, record_episode
from .wandb_logger import open_wandb
from .world_collector import WorldCollector

__all__ = [
    "PROBE_STATES",
    "Annealing",
    "Checkpoints",
    "CollectorState",
    "Episodes",
    "LearningCurves",
    "OffPolicyAgent",
    "OffPolicySettings",
    "OnPolicySettings",
    "PopulationAgent",
    "Progress",
    "ReplayState",
    "Run",
    "SeedRuns",
    "StopFlag",
    "TrustRegion",
    "WorldCollector",
    "best_particle",
    "catch_interrupt",
    "check_losses",
    "check_overrides",
    "check_same_problem",
    "draw_learning_curves",
    "draw_multigoal",
    "draw_sorted_returns",
    "draw_state_densities",
    "draw_trained_agent",
    "episode_metrics",
    "evaluate_agent",
    "evaluate_multigoal",
    "evaluate_particles",
    "exit_if_unwritable",
    "find_checkpoint",
    "git_state",
    "kernel_image",
    "kernel_matrix",
    "linear_schedule",
    "load_actor",
    "load_weights",
    "log_episode",
    "make_annealing",
    "make_configured_task",
    "make_explorer",
    "make_gaussian_actor",
    "make_linear_critic",
    "make_mlp",
    "make_optimizer",
    "make_task",
    "make_trust_region",
    "make_updaters",
    "mean_interval",
    "mode_colours",
    "multigoal_metrics",
    "open_wandb",
    "play_episodes",
    "population_sizes",
    "prepare_rendering",
    "print_above",
    "print_summary",
    "progress_bar",
    "read_metadata",
    "read_provenance",
    "record_episode",
    "replayed_observations",
    "resumed_config",
    "return_metrics",
    "run_off_policy_recipe",
    "spawn_seeds",
    "sum_of_worlds",
    "train_off_policy",
    "train_on_policy",
    "train_population",
    "train_sampler",
    "training_returns",
]
