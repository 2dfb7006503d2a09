"""Speed beside other libraries (``speed``), the papers' experiments, and the results of both."""

import os
from pathlib import Path

os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")  # read when torchrl is imported

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
