"""Figures of the SVPG experiments: which runs they show, and what of them."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.experiments import svpg_figures as figures
from benchmarks.experiments import svpg_statistics as stats
from tests.benchmarks.test_svpg_report import make_run
from torchrl_stein.runs import make_gaussian_actor, make_task


def test_a_common_plane_keeps_groups_apart():
    pytest.importorskip("openTSNE")
    rng = np.random.default_rng(0)
    groups = [rng.normal(size=(60, 4)), 8 + rng.normal(size=(40, 4)), rng.normal(size=(20, 4))]
    points = figures.embed(groups)
    assert [p.shape for p in points] == [(60, 2), (40, 2), (20, 2)]
    first, far, near = (p.mean(0) for p in points)
    assert np.linalg.norm(first - far) > 3 * np.linalg.norm(first - near)
    assert np.array_equal(figures.embed(groups)[2], points[2])


def test_a_figure_of_states_without_opentsne(tmp_path, monkeypatch, capsys):
    for mode in ("svpg", "independent"):
        make_run(tmp_path, "table", mode, 0, [1.0] * 4, checkpoint=True)
    content = stats.gather(tmp_path, tmp_path / "svpg.json")
    monkeypatch.setattr(figures, "best_states", lambda run: {"#1 (1)": np.zeros((9, 4))})
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    figures.draw_states(content["runs"], tmp_path, tmp_path / "states.png")
    assert "pip install openTSNE" in capsys.readouterr().out
    assert not (tmp_path / "states.png").exists()


def test_ip_wgf_has_a_picture_of_its_curves(tmp_path):
    for suite in ("table", "ip_wgf"):
        for mode in ("svpg", "ip_wgf"):
            make_run(tmp_path, suite, mode, 0, [1.0] * 4)
    runs = stats.gather(tmp_path, tmp_path / "svpg.json")["runs"]
    drawn = {}

    def draw(path, panels, colours):
        drawn[path.name] = {title: [*methods] for title, methods in panels.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures.figures, "draw_learning_curves", draw)
        figures.draw_figures(runs, tmp_path, tmp_path)
    panel = {"REINFORCE Cartpole Swing Up": ["svpg", "ip_wgf"]}
    assert drawn == {"svpg_learning_curves.png": panel, "svpg_ip_wgf.png": panel}


def test_states_of_the_best_policies(monkeypatch):
    torch.manual_seed(0)
    env = make_task("cartpole_swingup", (6, 1), seed=0)
    actor = make_gaussian_actor(env, 6, [4])
    saved = SimpleNamespace(
        leading=(6,), env="cartpole_swingup", env_options={}, eval=SimpleNamespace(max_steps=30)
    )
    monkeypatch.setattr(figures, "load_actor", lambda path: actor)
    monkeypatch.setattr(figures, "read_population", lambda path: saved)
    states = figures.best_states("a run", episodes=5, kept=40)
    assert [title.split()[0] for title in states] == ["#1", "#2", "#3", "#4"]
    assert {s.shape for s in states.values()} == {
        (40, env.observation_spec["observation"].shape[-1])
    }
    again = figures.best_states("a run", episodes=5, kept=40)
    assert all(np.array_equal(again[title], states[title]) for title in states)


def test_states_of_a_run(population_run):
    states = figures.best_states(population_run, count=2, episodes=3, kept=50)
    assert [points.shape for points in states.values()] == [(50, 4)] * 2


def test_the_pair_of_the_figure_of_states(tmp_path, monkeypatch):
    pytest.importorskip("openTSNE")
    asked = []

    def best_states(run):
        asked.append(run.name)
        rng = np.random.default_rng(len(asked))
        return {f"#{i} (5)": rng.normal(size=(30, 4)) + 4 * i for i in range(1, 5)}

    for mode, seed in [("svpg", 0), ("svpg", 1), ("independent", 1), ("joint", 1)]:
        make_run(tmp_path, "table", mode, seed, [1.0] * 4, checkpoint=True)
    content = stats.gather(tmp_path, tmp_path / "svpg.json")
    monkeypatch.setattr(figures, "best_states", best_states)
    figures.draw_states(content["runs"], tmp_path, tmp_path / "states.png")
    assert asked == ["svpg--seed1", "independent--seed1"]
    assert (tmp_path / "states.png").stat().st_size > 10_000
