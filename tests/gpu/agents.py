"""Agents of the off-policy recipes, small, and transitions to learn from."""

import importlib.util

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.recipes.processes import ROOT
from torchrl_stein.training import make_configured_task

RECIPES = ROOT / "benchmarks" / "first_recipes"
SMALL = ["network.num_cells=[8]", "env.num_envs=4", "training.batch_size=8"]
FEW = ["loss.num_particles=3", "loss.num_value_samples=3"]
REGION = ["trust_region.weight=0.4", "trust_region.num_particles=3"]
# Name of a case, and the recipe's with settings.
OFF_POLICY_AGENTS = {
    "soft_q": ("soft_q", *FEW, "annealing.updates=6"),
    "dp_wgf": ("soft_q", *FEW, *REGION, "loss.num_qvalue_nets=2"),
    "dp_wgf_copied": ("soft_q", *FEW, *REGION, "trust_region.tau=null"),
    "dp_wgf_v": ("dp_wgf_v", *FEW, *REGION, "actor.num_particles=2"),
    "sac": ("sac",),
    "ddpg": ("ddpg",),
    "td3": ("td3",),
}


def recipe(name):
    """The module of a recipe, which no other test sees."""
    spec = importlib.util.spec_from_file_location(f"_{name}", RECIPES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_off_policy(case, device="cpu", seed=0):
    """An agent, and a function that gives the batch of an update by its number."""
    name, *overrides = OFF_POLICY_AGENTS[case]
    with initialize_config_dir(str(RECIPES / "conf"), version_base="1.3"):
        cfg = compose(name, [*SMALL, *overrides, f"device={device}"])
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    env = make_configured_task(cfg.env, cfg.env.num_envs, device=device, seed=seed)
    torch.manual_seed(seed)
    agent = recipe(name).make_agent(cfg, env)
    with torch.no_grad():
        data = env.rollout(8, agent.explorer, break_when_any_done=False).reshape(-1)
    return agent, lambda update: data.roll(update, 0)[:8].contiguous()
