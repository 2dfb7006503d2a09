"""Ants that are put somewhere by hand."""

import numpy as np

UPRIGHT = (1.0, 0.0, 0.0, 0.0)
# Hips straight, ankles within their limits and alike: the pose in which rllab's ant starts.
LEGS = (0.0, 1.0, 0.0, -1.0, 0.0, -1.0, 0.0, 1.0)
ON_THE_GROUND = 0.55  # metres
IN_THE_AIR = 0.9  # no leg touches the ground, and the height still counts as healthy


def place(env, position, *, z=IN_THE_AIR, quaternion=UPRIGHT, velocity=(0.0, 0.0)):
    """Resets, and bends all legs alike: the centre of mass is right below that of the torso."""
    env.reset(seed=0)
    qpos, qvel = np.zeros(env.model.nq), np.zeros(env.model.nv)
    qpos[:2], qpos[2], qpos[3:7], qpos[7:], qvel[:2] = position, z, quaternion, LEGS, velocity
    env.set_state(qpos, qvel)


def push(env, start, force, steps=60):
    """Pushes a limp ant by a force (x, y) on its torso.

    Returns:
        Positions of the torso [steps, 2] and the last info.
    """
    place(env, start, z=ON_THE_GROUND)
    env.data.xfrc_applied[1, :2] = force
    positions = []
    for _ in range(steps):
        info = env.step(np.zeros(8, dtype=np.float32))[4]
        positions.append(env.data.qpos[:2].copy())
    return np.array(positions), info
