"""Pure tensor maths. Imports torch and, of ours, the checks; one formula, one function.

All raise a TypeError for what is no floating-point tensor, number or function, and a ValueError for
shapes that do not fit and, on a CPU, numbers out of range.
"""

from .birth_death_rates import birth_death_rates
from .categorical import project_to_support
from .conjugate_gradient import conjugate_gradient
from .discrepancy import (
    inverse_multiquadric,
    ksd_u_statistic,
    ksd_v_statistic,
    mmd_squared,
    mode_frequencies,
    normalized_entropy,
    stein_kernel,
)
from .distance import squared_distances
from .divergence import (
    categorical_jensen_shannon,
    categorical_symmetric_kl,
    gaussian_jensen_shannon_bound,
    gaussian_symmetric_kl,
)
from .evolution import centred_ranks, evolution_gradient, z_scores
from .kl_penalty import adapt_kl_penalty
from .log_distance import log_distance, log_distance_gradient
from .retrace import retrace
from .soft_value import (
    boltzmann_value,
    entropy_regularized_value,
    expected_value,
    mellowmax_value,
    soft_value,
)
from .soft_value_iteration import soft_value_iteration
from .squash import squash_log_det, squash_to_box
from .stein_coupling import couple_particles, repulsion_surrogate
from .svgd import amortized_surrogate, svgd_direction
from .svgd_density import svgd_log_det, svgd_step_bound
from .transport import entropic_plan, entropic_transport, sinkhorn_divergence, wgf_potential
from .tries import removal_success_in_tries, success_in_tries
from .truncated_importance import truncated_importance
from .trust_region import trust_region_projection

__all__ = [
    "adapt_kl_penalty",
    "amortized_surrogate",
    "birth_death_rates",
    "boltzmann_value",
    "categorical_jensen_shannon",
    "categorical_symmetric_kl",
    "centred_ranks",
    "conjugate_gradient",
    "couple_particles",
    "entropic_plan",
    "entropic_transport",
    "entropy_regularized_value",
    "evolution_gradient",
    "expected_value",
    "gaussian_jensen_shannon_bound",
    "gaussian_symmetric_kl",
    "inverse_multiquadric",
    "ksd_u_statistic",
    "ksd_v_statistic",
    "log_distance",
    "log_distance_gradient",
    "mellowmax_value",
    "mmd_squared",
    "mode_frequencies",
    "normalized_entropy",
    "project_to_support",
    "removal_success_in_tries",
    "repulsion_surrogate",
    "retrace",
    "sinkhorn_divergence",
    "soft_value",
    "soft_value_iteration",
    "squared_distances",
    "squash_log_det",
    "squash_to_box",
    "stein_kernel",
    "success_in_tries",
    "svgd_direction",
    "svgd_log_det",
    "svgd_step_bound",
    "truncated_importance",
    "trust_region_projection",
    "wgf_potential",
    "z_scores",
]
