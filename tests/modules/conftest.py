"""Both ways in which a population is evaluated."""

import pytest

from torchrl_stein.modules import particle_module as module_file


@pytest.fixture(params=["batched", "in turn"])
def strategy(request, monkeypatch):
    rows = 10**9 if request.param == "batched" else 0
    monkeypatch.setattr(module_file, "_ROWS_IN_TURN", rows)
    return request.param
