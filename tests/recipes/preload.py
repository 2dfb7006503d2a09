"""What every recipe imports, for the process of which the others are forks.

Nothing is computed here: a fork of a process with running threads may wait for one that it has not.
"""

import gc
import importlib
import pkgutil
from contextlib import suppress

import torchrl_stein

NAMES = [
    "hydra",
    "hydra._internal.hydra",
    "hydra.core.override_parser.overrides_parser",
    "imageio_ffmpeg",
    "matplotlib.backends.backend_agg",
    "matplotlib.pyplot",
    "pytest",
    "sklearn.datasets",
    "tests.recipes.processes",
    "torch.distributed",
    "torchrl.collectors",
    "torchrl.objectives",
    "tqdm",
]
NAMES += [found.name for found in pkgutil.walk_packages(torchrl_stein.__path__, "torchrl_stein.")]

for name in NAMES:
    with suppress(ImportError):  # an extra that is not installed; the test that needs it says so
        importlib.import_module(name)

gc.collect()
gc.freeze()  # a fork that looks through all of this for garbage would copy it
