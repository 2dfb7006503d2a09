"""Stein variational policy gradient (Liu et al. 2017, arXiv:1704.02399) and its baselines.

``mode=ip_wgf`` adds a Wasserstein trust region (Zhang et al. 2018, arXiv:1808.03030); ``base=trpo``
steps along natural gradients (Schulman et al. 2015, arXiv:1502.05477).

    python recipes/svpg.py                                  # A2C with birth and death, swing-up
    python recipes/svpg.py mode=svpg base=reinforce         # the paper's algorithm
    python recipes/svpg.py --config-name ip_wgf base=reinforce  # with the settings of that paper
    python recipes/svpg.py --config-name trpo env=Hopper-v5     # TRPO, a single policy
    python recipes/svpg.py env=double_pendulum base=reinforce mode=independent seed=3
    python recipes/svpg.py --multirun mode=svpg,joint seed=0,1   # one by one
    python recipes/svpg.py seeds=5                               # seeds 0 to 4 as one batch
    python recipes/svpg.py env=InvertedPendulum-v5 base=ppo training.num_epochs=10
    python recipes/svpg.py resume=runs/svpg/...                  # go on where a run stopped

Every setting of conf/svpg.yaml can be given on the command line.
"""

import os
import sys
from functools import partial

os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")  # read when torchrl is imported
if __name__ == "__main__":  # before torch is imported, which takes seconds
    from command_line import answer_help

    answer_help(__doc__, "svpg")

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch.optim import Optimizer
from torchrl.envs import EnvBase
from torchrl.modules import ProbabilisticActor, ValueOperator
from torchrl.objectives import A2CLoss, ClipPPOLoss, LossModule, ReinforceLoss

from torchrl_stein.envs import BatchedEnv
from torchrl_stein.kernels import (
    BehaviourKernel,
    DriftControl,
    GroupedKernel,
    IdentityKernel,
    Kernel,
    LayerwiseKernel,
    RadialControl,
    SharedDriftControl,
    TangentialControl,
)
from torchrl_stein.modules import BirthDeath
from torchrl_stein.objectives import (
    LogLinearSchedule,
    NaturalGradientStep,
    SteinPolicyLoss,
    TRPOLoss,
)
from torchrl_stein.training import (
    PopulationAgent,
    check_overrides,
    exit_if_unwritable,
    make_gaussian_actor,
    make_linear_critic,
    make_task,
    make_trust_region,
    population_sizes,
    read_compile_settings,
    resumed_config,
    train_population,
)

INTERACTIONS = ("svpg", "independent", "drift", "shared_drift", "radial", "tangential")
CHOICES = {
    "mode": ("birth_death", "joint", "ip_wgf", *INTERACTIONS),
    "base": ("reinforce", "a2c", "ppo", "trpo"),
    "birth_death.interaction": INTERACTIONS,
}
COUNTS = (
    "population.num_particles",
    "population.envs_per_particle",
    "training.iterations",
    "training.steps",
)


def check_settings(cfg: DictConfig) -> None:
    """Refuse words that nothing answers to, before anything is made."""
    for name, known in CHOICES.items():
        value = OmegaConf.select(cfg, name)
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; got {value}")
    for name in COUNTS:
        value = OmegaConf.select(cfg, name)
        if value < 1:
            raise ValueError(f"{name} must be >= 1; got {value}")
    if cfg.base == "trpo" and cfg.mode == "ip_wgf":
        raise ValueError("mode=ip_wgf needs another base; trpo has a trust region of its own")
    if cfg.trust_region.weight < 0:
        raise ValueError(f"trust_region.weight must be >= 0; got {cfg.trust_region.weight}")
    read_compile_settings(cfg).check(cfg.device)
    env = make_task(cfg.env, (1, 1), seed=0, options=cfg.env_options)
    env.close()
    seeds = population_sizes(cfg)[0]
    if seeds < 1:
        raise ValueError(f"seeds must be >= 1; got {seeds}")
    if seeds > 1 and not isinstance(env, BatchedEnv):
        each = ",".join(str(cfg.seed + s) for s in range(seeds))
        raise ValueError(
            f"seeds must be 1 for {cfg.env}, whose simulators run one after the other; for one run "
            f"after the other: --multirun seed={each}"
        )


def make_kernel(cfg: DictConfig, actor: ProbabilisticActor) -> Kernel:
    """How particles interact: the kernel, nothing, or a control of the kernel's repulsion."""
    population = actor[0].module
    kernel = instantiate(cfg.loss.kernel)
    if isinstance(kernel, partial):  # _partial_: true, for kernels that must know the policies
        known = {BehaviourKernel: actor, LayerwiseKernel: population.layer_slices}
        if kernel.func not in known:
            raise ValueError(f"loss.kernel: {kernel.func.__name__} needs no _partial_")
        kernel = kernel(known[kernel.func])
    seeds = population_sizes(cfg)[0]
    if seeds > 1:  # inside of the controls: each particle of all seeds drifts along its own way
        kernel = GroupedKernel(kernel, seeds)
    mode = cfg.birth_death.interaction if cfg.mode == "birth_death" else cfg.mode
    drifting = (kernel, population.num_particles, population.kernel_dim)
    kernels = {
        "svpg": lambda: kernel,
        "ip_wgf": lambda: kernel,
        "independent": IdentityKernel,
        "joint": IdentityKernel,
        "radial": lambda: RadialControl(kernel),
        "tangential": lambda: TangentialControl(kernel),
        "drift": lambda: DriftControl(*drifting, seed=cfg.seed),
        "shared_drift": lambda: SharedDriftControl(*drifting, seed=cfg.seed),
    }
    return kernels[mode]()


def make_base_loss(cfg: DictConfig, actor: ProbabilisticActor, critic: ValueOperator) -> LossModule:
    """A policy loss; advantages are given, and critics are fitted in closed form."""
    if cfg.base == "reinforce":
        return ReinforceLoss(actor, critic)
    if cfg.base == "a2c":
        return A2CLoss(actor, critic, entropy_bonus=False, critic_coeff=None)
    if cfg.base == "trpo":  # with advantages as the others have them, standardised by the agent
        return TRPOLoss(actor, critic, critic_coeff=0.0, normalize_advantage=False)
    return ClipPPOLoss(
        actor,
        critic,
        clip_epsilon=cfg.loss.clip_epsilon,
        entropy_bonus=False,
        critic_coeff=None,
    )


def make_optimizer(cfg: DictConfig, loss: SteinPolicyLoss) -> Optimizer:
    """Adam, or what takes steps of limited divergence."""
    if cfg.base == "trpo":
        return NaturalGradientStep(loss, **cfg.trpo)
    # Of several seeds each has its share of the gradient, and with the same share of eps its own
    # step: Adam's does not depend on a factor in both.
    eps = 1e-8 / population_sizes(cfg)[0]
    return torch.optim.Adam(loss.parameters(), lr=cfg.optim.lr, eps=eps, fused=True)


def make_agent(cfg: DictConfig, env: EnvBase) -> PopulationAgent:
    """Policies, baselines, loss and optimizer: the algorithm."""
    num_particles = env.batch_size[0]
    actor = make_gaussian_actor(env, num_particles, cfg.population.num_cells)
    critic = make_linear_critic(env, num_particles)
    temperature = cfg.loss.temperature
    if cfg.loss.final_temperature is not None:
        temperature = LogLinearSchedule(
            temperature, cfg.loss.final_temperature, cfg.training.iterations
        )
    loss = SteinPolicyLoss(
        make_base_loss(cfg, actor, critic),
        kernel=make_kernel(cfg, actor),
        temperature=temperature,
    ).to(cfg.device)
    seeds = population_sizes(cfg)[0]
    birth_death = None
    if cfg.mode == "birth_death":
        birth_death = BirthDeath(
            actor[0].module,
            loss.kernel,
            temperature=cfg.birth_death.temperature,
            jitter=cfg.birth_death.jitter,
            num_groups=seeds,
        )
    trust_region = None
    if cfg.mode == "ip_wgf":
        trust_region = make_trust_region(
            actor,
            # SteinPolicyLoss is alpha times the KL of which the paper's weight is the multiple.
            weight=cfg.trust_region.weight * cfg.loss.temperature,
            cost=instantiate(cfg.trust_region.cost),
            tau=cfg.trust_region.tau,
            space="parameter",
            num_groups=seeds,
        )
    return PopulationAgent(
        actor=actor,
        critic=critic,
        fit_critic=cfg.base != "reinforce",
        loss=loss,
        optimizer=make_optimizer(cfg, loss),
        gamma=cfg.loss.gamma,
        lmbda=cfg.loss.lmbda,
        num_epochs=cfg.training.num_epochs,
        num_minibatches=cfg.training.num_minibatches,
        birth_death=birth_death,
        birth_death_interval=cfg.birth_death.interval,
        trust_region=trust_region,
    )


@hydra.main(version_base="1.3", config_path="conf", config_name="svpg")
def main(cfg: DictConfig) -> None:
    """Train and evaluate."""
    try:
        overrides = HydraConfig.get().overrides.task
        check_overrides(overrides)
        cfg = resumed_config(cfg, overrides)
        check_settings(cfg)
    except (FileNotFoundError, ImportError, TypeError, ValueError) as error:
        sys.exit(f"svpg.py: {error}")
    config = OmegaConf.to_container(cfg, resolve=True)

    def make_checked_agent(env: EnvBase) -> PopulationAgent:
        try:
            return make_agent(cfg, env)
        except (TypeError, ValueError) as error:
            sys.exit(f"svpg.py: {error}")

    with exit_if_unwritable("svpg.py", cfg.run_dir):
        run, complete = train_population(config, make_checked_agent)
        run.close()
    if not complete:
        sys.exit(130)  # the shell's code for Ctrl-C; the checkpoint is written


if __name__ == "__main__":
    main()
