"""Soft Q-learning (Haarnoja et al. 2017, arXiv:1702.08165).

With ``trust_region.weight`` above 0 it is DP-WGF (Zhang et al. 2018, arXiv:1808.03030): a
Wasserstein trust region keeps the sampler near its predecessor.

    python recipes/soft_q.py                          # four goals, one policy, a picture
    python recipes/soft_q.py seed=3 logger=wandb loss.temperature=5
    python recipes/soft_q.py trust_region.weight=0.4  # DP-WGF
    python recipes/soft_q.py task=hopper critics=crossq
    python recipes/soft_q.py resume=runs/soft_q/...   # go on where a run stopped
    python recipes/soft_q.py task=swimmer_finish_line # any task of conf/task
    python recipes/soft_q.py task=ant_pretrain        # then fine-tune it to another task:
    python recipes/soft_q.py task=ant_hallway init_from=runs/soft_q/... annealing.updates=200_000

Every setting of conf/soft_q.yaml and conf/off_policy.yaml can be given on the command line.
"""

from typing import Literal, Self

from pydantic import model_validator

from torchrl_stein.runs.settings import (
    ActionTrustRegion,
    Annealing,
    Count,
    CriticNetwork,
    CrossQOptim,
    Exploration,
    Fraction,
    OffPolicySettings,
    Positive,
    Section,
    Target,
    check_command_line,
)


class Loss(Section):
    """Arguments of SoftQLoss, and the discount."""

    temperature: Positive
    fixed_alpha: bool
    alpha_target: Literal["entropy", "log_distance"]
    target_entropy: float | Literal["auto"]
    beta: Positive
    gamma: Fraction
    kernel: Target
    force: Literal["svgd", "repulsion", "log_distance"]
    num_action_samples: Count
    num_value_samples: Count
    value_target: Literal["soft", "boltzmann", "mellowmax", "expected", "entropy_regularized"]
    value_proposal: Literal["uniform", "actor", "log_distance"] | None
    squash: Literal["unsquashed", "reference", "none"]
    num_qvalue_nets: Count
    ensemble_reduction: Literal["min", "mean"]
    actor_interval: Count


class Settings(OffPolicySettings):
    """conf/soft_q.yaml."""

    recipe: Literal["soft_q"]
    network: CriticNetwork
    loss: Loss
    optim: CrossQOptim
    trust_region: ActionTrustRegion
    exploration: Exploration
    annealing: Annealing

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.annealing.updates > 0 and not self.loss.fixed_alpha:
            raise ValueError("loss.fixed_alpha=true with annealing.updates above 0; it is false")
        of_policy = self.loss.value_target in ("expected", "entropy_regularized")
        uniform = self.loss.value_proposal in (None, "uniform") and not of_policy
        if self.loss.value_proposal == "log_distance" and (
            self.loss.value_target != "entropy_regularized"
        ):
            raise ValueError(
                "loss.value_target=entropy_regularized with loss.value_proposal=log_distance; it "
                f"is {self.loss.value_target}"
            )
        if self.network.norm != "batch_renorm":
            return self
        if uniform:
            raise ValueError(
                "network.norm=batch_renorm with values of the policy's actions: "
                "loss.value_target=expected or entropy_regularized, or loss.value_proposal=actor; "
                f"they are {self.loss.value_target} and {self.loss.value_proposal or 'null'}"
            )
        if self.loss.num_value_samples > 1:
            raise ValueError(
                "loss.num_value_samples=1 with network.norm=batch_renorm; it is "
                f"{self.loss.num_value_samples}"
            )
        return self


if __name__ == "__main__":  # before torch is imported, which takes seconds
    check_command_line(__file__, Settings, __doc__)

from collections.abc import Callable
from functools import partial

import hydra
import torch
from omegaconf import DictConfig
from tensordict import TensorDict, TensorDictBase
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import EnvBase
from torchrl.modules import ValueOperator
from torchrl.objectives import HardUpdate, SoftUpdate

from torchrl_stein import AmortizedSVGDActor, SoftQLoss, functional, objectives
from torchrl_stein.objectives import (
    ActionSpace,
    BoxSquash,
    EntropyTarget,
    LinearSchedule,
    LogDistanceTarget,
    LogLinearSchedule,
    TanhSquash,
)
from torchrl_stein.runs import (
    NORMS,
    SeedFolders,
    Session,
    build,
    compiled,
    draw_run,
    evaluate,
    load_pretrained,
    log_episode,
    make_configured_task,
    make_explorer,
    make_mlp,
    make_reward_scaling,
    make_trust_region,
    one_per_seed,
    rows_of_seeds,
    seeds_of_rows,
)

# What the words of conf/soft_q.yaml stand for; others are the beginnings of names.
SQUASHES = {
    "unsquashed": TanhSquash(),
    "reference": BoxSquash(barrier=True),
    "none": BoxSquash(barrier=False),
}


def make_loss(cfg: Settings, env: EnvBase) -> SoftQLoss:
    """Sampler, Q-functions and the loss over both; the sampler is ``loss.actor_network``."""
    observation_dim = env.observation_spec["observation"].shape[-1]
    spec = env.action_spec_unbatched
    size = observation_dim + spec.shape[-1]
    mlp = partial(make_mlp, num_cells=cfg.network.num_cells, device=cfg.device, seeds=cfg.seeds)
    norm, joint_pass = NORMS[cfg.network.norm], cfg.network.norm == "batch_renorm"
    actor = AmortizedSVGDActor(
        mlp(size, spec.shape[-1]),  # reads the observation and the noise
        action_spec=spec,
        noise_set_size=cfg.annealing.noise_set_size if cfg.annealing.updates else None,
    )
    qvalues = [
        ValueOperator(mlp(size, 1, norm=norm), in_keys=["observation", "action"])
        for _ in range(cfg.loss.num_qvalue_nets)
    ]
    loss = SoftQLoss(
        actor,
        qvalues,
        temperature=make_temperature(cfg),
        force=getattr(objectives, f"{cfg.loss.force}_force"),
        ensemble_reduction=torch.amin if cfg.loss.ensemble_reduction == "min" else torch.mean,
        kernel=build(cfg.loss.kernel),
        num_action_samples=cfg.loss.num_action_samples,
        num_value_samples=cfg.loss.num_value_samples,
        value_proposal=getattr(objectives, f"{cfg.loss.value_proposal}_proposal", None),
        value_target=getattr(functional, f"{cfg.loss.value_target}_value"),
        squash=SQUASHES[cfg.loss.squash],
        delay_qvalue=not joint_pass,
        joint_pass=joint_pass,
        deactivate_vmap=joint_pass,  # torch.vmap of batch normalization takes longer
    ).to(cfg.device)
    return loss.make_value_estimator(gamma=cfg.loss.gamma)


def make_temperature(cfg: Settings) -> float | EntropyTarget | LogDistanceTarget:
    """A number, or how each seed learns its own."""
    # The loss sees scaled rewards; (alpha, r) and (c alpha, c r) are the same problem.
    first = cfg.loss.temperature * cfg.training.temperature_scale
    if cfg.loss.fixed_alpha:
        return first
    alpha_init = one_per_seed(first, cfg.seeds)
    if cfg.loss.alpha_target == "entropy":
        return EntropyTarget(cfg.loss.target_entropy, alpha_init=alpha_init)
    return LogDistanceTarget(cfg.loss.beta, alpha_init=alpha_init)


def make_annealing(loss: SoftQLoss, *, updates: int, temperature: float) -> Callable[[int], None]:
    """Towards a nearly deterministic policy (appendix D.1): call it before each update.

    The temperature falls by equal factors; of a sampler's noise set fewer and fewer are drawn.
    """
    if updates == 0:
        return lambda done: None
    actor = loss.actor_network
    falling = LogLinearSchedule(float(loss.temperature), temperature, updates)

    def anneal(done: int) -> None:
        # To assign would copy a number from the host, for which an accelerator waits.
        loss.temperature.fill_(falling(done))
        if actor.noise_set is not None:
            fewer = LinearSchedule(float(len(actor.noise_set)), 1.0, updates)
            actor.limit_noise(round(fewer(done)))

    return anneal


@hydra.main(version_base="1.3", config_path="conf", config_name="soft_q")
def main(values: DictConfig) -> None:
    """Collect, store, learn; evaluate now and then."""
    cfg = Settings.read(values)
    with Session(cfg) as session:
        train_seed, eval_seed, _ = session.seeds
        env = make_configured_task(
            cfg.env, (*cfg.leading, cfg.env.num_envs), device=cfg.device, seed=train_seed
        )
        loss = make_loss(cfg, env)
        actor, training = loss.actor_network, cfg.training
        temperatures = [] if cfg.loss.fixed_alpha else [loss.log_alpha]
        critic, sampler = loss.qvalue_network_params, loss.actor_network_params
        optim = torch.optim.Adam(
            [
                {"params": list(critic.parameters()), "lr": cfg.optim.lr_qvalue},
                {"params": list(sampler.parameters()), "lr": cfg.optim.lr_actor},
                {"params": temperatures, "lr": cfg.optim.lr_alpha},
            ],
            betas=(cfg.optim.beta1, 0.999),
            eps=1e-8 / cfg.seeds,  # a loss is a mean over seeds: each takes its own step
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.LinearLR(
            optim, 1.0, cfg.optim.final_lr_fraction, total_iters=cfg.num_updates
        )
        if loss.joint_pass:
            target = None  # CrossQ has no target networks
        elif cfg.optim.target_tau is not None:
            target = SoftUpdate(loss, tau=cfg.optim.target_tau)
        else:
            target = HardUpdate(
                loss, value_network_update_interval=cfg.optim.target_update_interval
            )
        if cfg.init_from is not None and cfg.resume is None:
            load_pretrained(cfg.init_from, loss)  # targets too, which their updater has just set
        anneal = make_annealing(
            loss,
            updates=cfg.annealing.updates,
            temperature=cfg.annealing.temperature * training.temperature_scale,
        )
        space = ActionSpace(cfg.trust_region.num_action_samples)
        region, previous = make_trust_region(cfg.trust_region, actor, space)

        def update(batch: TensorDictBase, actor_learns: bool) -> TensorDict:
            losses = loss(batch) if actor_learns else loss.qvalue_loss(batch)
            if region is not None and actor_learns:
                losses.update(region(batch))
            sum(value for name, value in losses.items() if name.startswith("loss_")).backward()
            if previous is not None and actor_learns:
                previous.step()  # before the optimizer: afterwards both policies would be the same
            optim.step()
            optim.zero_grad()
            return losses.detach()

        # Of critics alone, where the actor waits, and of both; each whole, as TD3's are.
        kinds = [(False, [loss.qvalue_loss]), (True, [loss, region])]
        updates = [
            compiled(partial(update, actor_learns=both), cfg.compile, optim, losses=called)
            for both, called in (kinds if cfg.loss.actor_interval > 1 else kinds[1:])
        ]
        buffer = TensorDictReplayBuffer(
            storage=LazyTensorStorage(training.buffer_size, device=cfg.device),
            batch_size=training.batch_size,
            transform=make_reward_scaling(training.reward_scale, env, cfg.loss.gamma),
        )
        collector = Collector(
            env,
            make_explorer(actor, env.action_spec, **cfg.exploration.model_dump()),
            frames_per_batch=env.numel(),
            total_frames=cfg.seeds * training.total_frames,
            init_random_frames=cfg.seeds * training.warmup_frames,
            auto_register_policy_transforms=False,
            track_traj_ids=False,
        )
        session.track(
            loss=loss, optim=optim, schedule=schedule, target=target, region=region,
            previous=previous, buffer=buffer, collector=collector,
        )  # fmt: skip

        folders = SeedFolders(session, cfg.seeds)

        for data in session.batches(collector, total=training.total_frames, size=cfg.env.num_envs):
            kept = data.select(*loss.in_keys, strict=False)  # the loss reads nothing else
            buffer.extend(rows_of_seeds(kept, cfg.seeds))
            if session.steps <= training.warmup_frames:
                continue
            for _ in range(training.updates_per_step):
                anneal(session.updates)
                batch = seeds_of_rows(buffer.sample(), cfg.seeds)
                actor_learns = (session.updates + 1) % cfg.loss.actor_interval == 0
                losses = updates[-1 if actor_learns else 0](batch)
                schedule.step()
                if target is not None:
                    target.step()
                session.log_update(losses, batch, lr=schedule.get_last_lr()[0])
            if session.evaluation_due:
                metrics, _ = evaluate(
                    actor, cfg, episodes=cfg.eval.episodes, seed=eval_seed, qvalue=loss.qvalue
                )
                folders.log_evaluation(metrics)
                session.log_histogram("train/actions", batch["action"])

        metrics, played = evaluate(
            actor, cfg, episodes=cfg.eval.final_episodes, seed=eval_seed, qvalue=loss.qvalue
        )
        folders.finish(metrics)
        if cfg.seeds == 1:
            draw_run(session, cfg, played, loss)
            steps, device = cfg.eval.video_steps, cfg.device
            log_episode(session, actor, cfg.env, max_steps=steps, seed=eval_seed, device=device)


if __name__ == "__main__":
    main()
