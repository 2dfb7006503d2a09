"""Pure tensor maths. Imports torch and, of ours, the checks; one formula, one function."""

from .amortized_svgd import amortized_surrogate
from .birth_death_rates import birth_death_rates
from .conjugate_gradient import LinearSolution, conjugate_gradient
from .discrepancy import (
    inverse_multiquadric,
    ksd_u_statistic,
    ksd_v_statistic,
    mmd_squared,
    mode_frequencies,
    normalized_entropy,
    stein_kernel,
)
from .distance import (
    FlatDistances,
    distinct_pairs,
    flat_squared_distances,
    index_of_medoid,
    medoid,
    squared_distances,
    weighted_forces,
)
from .divergence import (
    categorical_jensen_shannon,
    categorical_symmetric_kl,
    gaussian_jensen_shannon_bound,
    gaussian_symmetric_kl,
)
from .evolution import centred_ranks, evolution_gradient, z_scores
from .soft_value import (
    boltzmann_value,
    entropy_regularized_value,
    mellowmax_value,
    soft_value,
)
from .squash import squash_log_det, squash_to_box, tanh_log_derivative
from .stein_coupling import couple_particles, repulsion_surrogate
from .svgd import SVGDDirection, svgd_direction
from .transport import (
    TransportPlan,
    entropic_plan,
    entropic_transport,
    sinkhorn_divergence,
    wgf_potential,
)

__all__ = [
    "FlatDistances",
    "LinearSolution",
    "SVGDDirection",
    "TransportPlan",
    "amortized_surrogate",
    "birth_death_rates",
    "boltzmann_value",
    "categorical_jensen_shannon",
    "categorical_symmetric_kl",
    "centred_ranks",
    "conjugate_gradient",
    "couple_particles",
    "distinct_pairs",
    "entropic_plan",
    "entropic_transport",
    "entropy_regularized_value",
    "evolution_gradient",
    "flat_squared_distances",
    "gaussian_jensen_shannon_bound",
    "gaussian_symmetric_kl",
    "index_of_medoid",
    "inverse_multiquadric",
    "ksd_u_statistic",
    "ksd_v_statistic",
    "medoid",
    "mellowmax_value",
    "mmd_squared",
    "mode_frequencies",
    "normalized_entropy",
    "repulsion_surrogate",
    "sinkhorn_divergence",
    "soft_value",
    "squared_distances",
    "squash_log_det",
    "squash_to_box",
    "stein_kernel",
    "svgd_direction",
    "tanh_log_derivative",
    "weighted_forces",
    "wgf_potential",
    "z_scores",
]
