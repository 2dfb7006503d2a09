"""What recipes share: runs, loggers, checkpoints, evaluation, the off-policy loop, figures."""

from .bookkeeping.checkpoint import (
    Checkpoints,
    check_same_problem,
    find_checkpoint,
    load_weights,
    read_metadata,
)
from .bookkeeping.collector_state import CollectorState
from .bookkeeping.console import print_above, print_summary, progress_bar
from .bookkeeping.cpu import prepare_cpu
from .bookkeeping.guards import StopFlag, catch_interrupt, check_losses, exit_if_unwritable
from .bookkeeping.overrides import check_overrides
from .bookkeeping.progress import Progress
from .bookkeeping.provenance import git_state, read_provenance
from .bookkeeping.resume import resumed_config
from .bookkeeping.run import Run, spawn_seeds
from .bookkeeping.wandb_logger import open_wandb
from .compilation import (
    CompileSettings,
    compile_function,
    make_capturable,
    read_compile_settings,
)
from .evaluation import Episodes, episode_metrics, play_episodes
from .figures.kernel_image import kernel_image, kernel_matrix
from .figures.multigoal import PROBE_STATES, draw_multigoal
from .figures.population import (
    LearningCurves,
    draw_learning_curves,
    draw_sorted_returns,
    draw_state_densities,
    mean_interval,
    mode_colours,
)
from .figures.rendering import prepare_rendering
from .figures.video import log_episode, record_episode
from .off_policy.agent import OffPolicyAgent, OffPolicySettings
from .off_policy.composition import replayed_observations, sum_of_worlds, train_sampler
from .off_policy.fine_tuning import Annealing, make_annealing
from .off_policy.loop import train_off_policy
from .off_policy.multigoal import draw_trained_agent, evaluate_multigoal, multigoal_metrics
from .off_policy.networks import make_explorer, make_mlp
from .off_policy.optimizer import linear_schedule, make_optimizer, make_updaters
from .off_policy.recipe import evaluate_agent, run_off_policy_recipe
from .off_policy.replay import ReplayState
from .population.agent import (
    PopulationAgent,
    make_gaussian_actor,
    make_linear_critic,
    training_returns,
)
from .population.loop import OnPolicySettings, return_metrics, train_on_policy
from .population.recipe import train_population
from .population.seed_runs import SeedRuns, population_sizes
from .population.selection import best_particle, evaluate_particles, load_actor
from .population.world_collector import WorldCollector
from .tasks import make_configured_task, make_task
from .trust_region import TrustRegion, make_trust_region

__all__ = [
    "PROBE_STATES",
    "Annealing",
    "Checkpoints",
    "CollectorState",
    "CompileSettings",
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
    "compile_function",
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
    "make_capturable",
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
    "prepare_cpu",
    "prepare_rendering",
    "print_above",
    "print_summary",
    "progress_bar",
    "read_compile_settings",
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
