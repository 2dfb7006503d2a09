"""Private names of torch, tensordict and TorchRL stand in torchrl_stein/_torchrl.py alone."""

import ast
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict, TensorDictParams
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs import EnvBase
from torchrl.modules import ProbabilisticActor
from torchrl.objectives import LossModule, PPOLoss, SACLoss

PACKAGE = Path(__file__).parents[1] / "torchrl_stein"
HOME = "_torchrl.py"

# What a subclass has to define or to extend under a private name, as the upstream base class asks.
OF_SUBCLASSES = {
    "_AcceptedKeys",  # LossModule: what set_keys accepts
    "_apply",  # nn.Module
    "_forward_value_estimator_keys",  # LossModule: set_keys calls it
    "_has_update_associated",  # LossModule: a target updater sets it
    "_in_keys",  # LossModule
    "_load_from_state_dict",  # nn.Module
    "_inv_call",  # Transform: what a buffer does with data that come in
    "_make_vmap",  # LossModule: set_vmap_randomness calls it
    "_out_keys",  # LossModule
    "_reset",  # EnvBase, and a key of tensordicts
    "_schedulable_buffers",  # LossModule: which hyperparameters may be assigned to
    "_set_in_keys",  # PPOLoss
    "_set_seed",  # EnvBase
    "_standardize_advantage",  # PPOLoss
    "_step",  # EnvBase, and a key of tensordicts
}
# gymnasium's environments read these of themselves, and ours extend them.
OF_GYMNASIUM = {"_forward_reward_weight"}

OF_INSTANCES = {"_cache", "_carrier", "_frames", "_iter", "_kwargs", "_target_entropy"}


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


UPSTREAM = OF_INSTANCES | {
    name
    for owner in (
        *(nn.Module, nn.Module(), torch.Tensor, TensorDict, TensorDictParams, TensorDictModule),
        *(ProbabilisticActor, LossModule, PPOLoss, SACLoss, EnvBase, Collector),
    )
    for name in dir(owner)
    if is_private(name)
}


def defined_names(tree):
    """Every name that a file gives to something of its own."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def foreign_names(tree, ours):
    """Private names that a file reads of something that is not ours, or writes to it.

    ``self`` may have what some file of ours defines or no upstream class has, another object what
    is both. ``sys._getframe`` is documented.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = ast.unparse(node.value)
            mine, theirs = node.attr in ours, node.attr in UPSTREAM
            known = mine or not theirs if owner in ("self", "cls") else mine and not theirs
            if not known and node.attr not in OF_SUBCLASSES and owner != "sys":
                yield f"{owner}.{node.attr}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value in UPSTREAM - OF_SUBCLASSES:
                yield repr(node.value)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            parts = [*node.module.split("."), *(alias.name for alias in node.names)]
            if parts[0] != PACKAGE.name and any(map(is_private, parts)):
                yield node.module


def library():
    paths = [p for p in PACKAGE.rglob("*.py") if p.name != HOME]
    return {path: ast.parse(path.read_text()) for path in paths}


def test_private_names_of_other_packages_have_one_home():
    trees = library()
    ours = {name for tree in trees.values() for name in defined_names(tree)}
    found = {
        str(path.relative_to(PACKAGE)): names
        for path, tree in trees.items()
        if (names := sorted(set(foreign_names(tree, ours | OF_GYMNASIUM))))
    }
    assert not found, f"move these behind a function of {HOME}: {found}"


def test_every_exception_is_used():
    source = "".join(path.read_text() for path in library())
    assert [name for name in OF_SUBCLASSES | OF_GYMNASIUM if name not in source] == []


def test_every_function_of_the_home_is_used_and_says_why():
    home = ast.parse((PACKAGE / HOME).read_text())
    functions = {node.name: node for node in home.body if isinstance(node, ast.FunctionDef)}
    imported = {
        alias.name
        for tree in library().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "torchrl_stein._torchrl"
        for alias in node.names
    }
    assert functions.keys() <= imported
    assert all(ast.get_docstring(node) for node in functions.values())


@pytest.mark.parametrize(
    ("source", "bad"),
    [
        ("loss._reduce_loss(x)", True),
        ("self._reduce_loss(x)", True),
        ("self.loss_module._buffers", True),
        ("x._version", True),
        ("torch._C._functorch", True),
        ("getattr(loss, '_all_schedulable_buffers', ())", True),
        ("collector._carrier = 1", True),
        ("from torch.utils._pytree import tree_map", True),
        ("from torch.utils import _pytree", True),
        ("import torch._dynamo\ntorch._dynamo.reset()", True),
        ("self._mine", False),
        ("other._mine", False),
        ("super()._apply(f)", False),
        ("data.exclude('_reset')", False),
        ("sys._getframe(1)", False),
        ("from torchrl_stein._torchrl import reduce_loss", False),
        ("from ._score import score", False),
    ],
)
def test_the_check_itself(source, bad):
    assert bool(list(foreign_names(ast.parse(source), {"_mine", "_carrier"}))) is bad
