"""docs/howto/ray_collectors.md: Ray processes collect for a population, on this machine."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs the extra ray")

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "howto" / "ray_collectors.md"
# After the script: what its last batch was.
CHECK = """
import pathlib
noise = ((data["action"] - data["loc"]) / data["scale"]).detach()
torch.save(
    {
        "shape": list(data.batch_size),
        "noise": noise.transpose(0, 1).contiguous(),
        "start": data["observation"][:, :, :, 0].transpose(0, 1).contiguous(),
        "iteration": int(loss.iteration),
        "connected": ray.is_initialized(),
    },
    "found.pt",
)
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_script_of_the_documentation(tmp_path):
    import torch

    (code,) = re.findall(r"```python no-run\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "script.py").write_text(code + CHECK)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    # Its script asserts that every batch is of the policies as they are before the update.
    process = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=360,
    )
    assert process.returncode == 0, process.stderr
    found = torch.load(tmp_path / "found.pt")
    assert found["shape"] == [8, 2, 4, 50]
    assert found["iteration"] == 3
    assert not found["connected"]
    # The two processes have other noise and other starts.
    for name in ("noise", "start"):
        first, second = found[name]
        assert not torch.isclose(first, second).any(), name
    assert abs(found["noise"].std().item() - 1) < 0.1
