"""Bodies on joints: matrices in maximal coordinates, and the textbook equations of motion.

``impulse_step`` is the scheme of the classic-control worlds written out for any bodies: Jacobians,
Lagrange multipliers, ``np.linalg.solve``. ``*_acceleration`` are the Lagrange equations with angles
as coordinates, which share nothing with it; ``runge_kutta`` integrates them.
"""

import numpy as np


def impulse_step(q, v, force, mass, joint, jacobian, h, projections):
    """One time step of bodies with coordinates q, velocities v and joints ``joint(q) = 0``."""
    inverse = np.diag(1.0 / np.asarray(mass))

    def multiplier(position, violation):
        J = jacobian(position)
        return inverse @ J.T @ np.linalg.solve(J @ inverse @ J.T, violation)

    v = v + h * inverse @ force
    v = v - multiplier(q, jacobian(q) @ v)
    q = q + h * v
    for _ in range(projections):
        q = q - multiplier(q, joint(q))
    return q, v


class Cartpole:
    """q = (x, p_x, p_y, theta), the pole's centre relative to the height of the hinge."""

    mass = (1.0, 0.1, 0.1, 0.1 * 1.01 / 12)

    @staticmethod
    def place(x, theta):
        return np.array([x, x - 0.5 * np.sin(theta), 0.5 * np.cos(theta), theta])

    @classmethod
    def joint(cls, q):
        return (q - cls.place(q[0], q[3]))[1:3]

    @staticmethod
    def jacobian(q):
        return np.array([[-1, 1, 0, 0.5 * np.cos(q[3])], [0, 0, 1, 0.5 * np.sin(q[3])]])

    @staticmethod
    def force(u):
        return np.array([u, 0.0, -1.0, 0.0])

    @staticmethod
    def acceleration(y, u):
        _, speed, th, w = y
        s, c = np.sin(th), np.cos(th)
        matrix = [[1.1, -0.05 * c], [-0.05 * c, 0.1 * 1.01 / 12 + 0.025]]
        a = np.linalg.solve(matrix, [u - 0.05 * w**2 * s, 0.5 * s])
        return np.array([speed, a[0], w, a[1]])


class DoublePendulum:
    """q = (centre of link 1, theta_1, centre of link 2, theta_2)."""

    mass = (0.5, 0.5, 0.5 * 1.01 / 12, 0.5, 0.5, 0.5 * 1.01 / 12)

    @staticmethod
    def place(th1, th2):
        n1, n2 = (np.array([np.sin(th), -np.cos(th)]) for th in (th1, th2))
        return np.array([*(0.5 * n1), th1, *(n1 + 0.5 * n2), th2])

    @staticmethod
    def joint(q):
        n1, n2 = (np.array([np.sin(th), -np.cos(th)]) for th in (q[2], q[5]))
        return np.concatenate([q[:2] - 0.5 * n1, q[3:5] - 0.5 * n2 - q[:2] - 0.5 * n1])

    @staticmethod
    def jacobian(q):
        t1, t2 = (np.array([np.cos(th), np.sin(th)]) for th in (q[2], q[5]))
        J = np.zeros((4, 6))
        J[:2, :2], J[:2, 2] = np.eye(2), -0.5 * t1
        J[2:, :2], J[2:, 2], J[2:, 3:5], J[2:, 5] = -np.eye(2), -0.5 * t1, np.eye(2), -0.5 * t2
        return J

    @staticmethod
    def force(u):
        return np.array([0.0, -5.0, -u, 0.0, -5.0, u])

    @staticmethod
    def acceleration(y, u):
        th1, w1, th2, w2 = y
        s, c = np.sin(th1 - th2), np.cos(th1 - th2)
        right = [
            -u - 0.25 * s * w2**2 - 7.5 * np.sin(th1),
            u + 0.25 * s * w1**2 - 2.5 * np.sin(th2),
        ]
        own = 0.5 * 1.01 / 12
        a = np.linalg.solve([[own + 0.625, 0.25 * c], [0.25 * c, own + 0.125]], right)
        return np.array([w1, a[0], w2, a[1]])


def runge_kutta(acceleration, y, u, duration, steps):
    """Classical fourth-order integration of y' = acceleration(y, u)."""
    h = duration / steps
    for _ in range(steps):
        a = acceleration(y, u)
        b = acceleration(y + 0.5 * h * a, u)
        c = acceleration(y + 0.5 * h * b, u)
        d = acceleration(y + h * c, u)
        y = y + h / 6 * (a + 2 * b + 2 * c + d)
    return y


def box_on_cosine(x_middle, half=0.2, rise=0.11):
    """Centre and tilt of a box whose lower corners lie on y = 1 - cos(pi x / 2), by bisection."""

    def track(x):
        return 1.0 - np.cos(0.5 * np.pi * x)

    low, high = 0.0, half
    for _ in range(60):
        d = 0.5 * (low + high)
        drop = 0.5 * (track(x_middle + d) - track(x_middle - d))
        low, high = (low, d) if d**2 + drop**2 > half**2 else (d, high)
    phi = np.arctan2(drop, d)
    height = 0.5 * (track(x_middle + d) + track(x_middle - d))
    return x_middle - rise * np.sin(phi), height + rise * np.cos(phi), phi
