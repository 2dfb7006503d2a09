"""Walls are where the ground plan says, and hold; passages are free."""

import mujoco
import numpy as np
import pytest

from tests.envs.ant_states import push
from torchrl_stein.envs.mujoco import AntHallwayEnv, AntMazeEnv, AntPretrainEnv, AntUMazeEnv, Wall

TORSO = 0.25  # radius in metres
FORCE = 25.0  # newtons; the ant weighs 9
SOFT = 0.1  # metres: how far contacts give way to the push


@pytest.mark.parametrize(
    "env_class", [AntPretrainEnv, AntHallwayEnv, AntMazeEnv, AntUMazeEnv], ids=lambda c: c.__name__
)
def test_boxes_of_the_simulator_are_those_of_the_plan(env_class):
    env = env_class()
    boxes = np.flatnonzero(env.model.geom_type == mujoco.mjtGeom.mjGEOM_BOX)
    built = set()
    for x, y, z, half_x, half_y, half_z in np.hstack(
        [env.model.geom_pos[boxes], env.model.geom_size[boxes]]
    ):
        assert z == half_z == env.arena.wall_height / 2  # they stand on the ground
        built.add(Wall(x - half_x, x + half_x, y - half_y, y + half_y))
    assert built == set(env.arena.walls)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_hallway_stops_sideways_motion(side):
    free, _ = push(AntPretrainEnv(), (0.0, 0.0), (0.0, side * FORCE))
    assert (side * free[-1, 1]) > 5.0  # nothing in the way: the push is strong enough
    for width in (6.0, 3.0):
        stopped, _ = push(AntHallwayEnv(hallway_width=width), (0.0, 0.0), (0.0, side * FORCE))
        assert (side * stopped[:, 1]).max() < width / 2 - TORSO + SOFT


def test_hallway_is_free_along_x():
    ways, _ = push(AntHallwayEnv(hallway_width=3.0), (0.0, 0.0), (FORCE, 0.0))
    assert ways[-1, 0] > 5.0


def test_lower_passage_leads_to_the_target_and_the_upper_one_does_not():
    env = AntMazeEnv()
    below, below_info = push(env, (2.0, -4.0), (FORCE, 0.0))
    assert below[:, 0].max() > 12.0
    assert below_info["min_distance_to_target"] < env.threshold
    above, above_info = push(env, (2.0, 4.0), (FORCE, 0.0))
    assert 6.0 < above[:, 0].max() < 7.5 - TORSO + SOFT
    assert above_info["min_distance_to_target"] > env.threshold


def test_nearest_corner_of_the_barred_passage_keeps_to_the_threshold():
    env = AntMazeEnv()
    _, info = push(env, (6.0, 3.0), (FORCE, -FORCE))
    assert env.threshold < info["min_distance_to_target"] < env.threshold + 1.0


def test_block_and_outer_walls_of_the_maze_hold():
    env = AntMazeEnv()
    assert push(env, (0.0, 0.0), (FORCE, 0.0))[0][:, 0].max() < 3.0 - TORSO + SOFT
    assert push(env, (0.0, 0.0), (-FORCE, 0.0))[0][:, 0].min() > -3.0 + TORSO - SOFT
    assert push(env, (12.0, 0.0), (FORCE, 0.0))[0][:, 0].max() < 15.0 - TORSO + SOFT
    assert push(env, (0.0, 0.0), (0.0, FORCE))[0][:, 1].max() < 6.0 - TORSO + SOFT
    assert push(env, (0.0, 0.0), (0.0, -FORCE))[0][:, 1].min() > -6.0 + TORSO - SOFT


def test_u_maze_leads_around_the_divider():
    env = AntUMazeEnv()
    assert push(env, (0.0, 0.0), (0.0, FORCE))[0][:, 1].max() < 2.0 - TORSO + SOFT
    assert 8.0 < push(env, (0.0, 0.0), (FORCE, 0.0))[0][:, 0].max() < 10.0 - TORSO + SOFT
    assert 8.0 < push(env, (8.0, 0.0), (0.0, FORCE))[0][:, 1].max() < 10.0 - TORSO + SOFT
    back, info = push(env, (8.0, 8.0), (-FORCE, 0.0))
    assert back[:, 0].min() < 0.5
    assert info["min_distance_to_target"] < 0.5
