"""A step of the world of agents and landmarks, one pair and one coordinate after the other."""

import math

STEP, DAMPING, FORCE, RADIUS = 0.1, 0.25, 5.0, 0.15
CONTACT_FORCE, MARGIN = 100.0, 1e-3


def spread_step(places, speeds, landmarks, actions):
    """Places and speeds after a step, and the reward; all are lists of pairs of numbers."""
    n = len(places)
    forces = [[FORCE * min(max(a, -1.0), 1.0) for a in action] for action in actions]
    for i in range(n):
        for j in range(i):
            dx, dy = (places[i][axis] - places[j][axis] for axis in (0, 1))
            distance = math.hypot(dx, dy)
            z = (2 * RADIUS - distance) / MARGIN
            depth = MARGIN * (max(z, 0.0) + math.log1p(math.exp(-abs(z))))  # softplus
            for axis, d in enumerate((dx, dy)):
                push = CONTACT_FORCE * depth * d / distance
                forces[i][axis] += push
                forces[j][axis] -= push
    speeds = [
        [(1 - DAMPING) * v + STEP * f for v, f in zip(speed, force, strict=True)]
        for speed, force in zip(speeds, forces, strict=True)
    ]
    places = [
        [x + STEP * v for x, v in zip(place, speed, strict=True)]
        for place, speed in zip(places, speeds, strict=True)
    ]
    reward = 0.0
    for i in range(n):  # what each agent is paid
        for landmark in landmarks:
            reward -= min(math.dist(place, landmark) for place in places)
        for j in range(n):
            reward -= j != i and math.dist(places[i], places[j]) < 2 * RADIUS
    return places, speeds, reward
