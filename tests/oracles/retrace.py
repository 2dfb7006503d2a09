"""Retrace as the double sum by which Munos et al. 2016 define it, eq. (3)."""


def retrace(q, next_value, reward, done, terminated, trace, gamma):
    """Q_t + sum_{s >= t} gamma^(s - t) c_{t+1} ... c_s (r_s + gamma V_{s+1} - Q_s), of lists."""
    returns = []
    for t in range(len(q)):
        total, weight = q[t], 1.0
        for s in range(t, len(q)):
            if s > t:
                weight *= gamma * trace[s]
            bootstrap = 0.0 if terminated[s] else gamma * next_value[s]
            total += weight * (reward[s] + bootstrap - q[s])
            if done[s]:
                break
        returns.append(total)
    return returns
