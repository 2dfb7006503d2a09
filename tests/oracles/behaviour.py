"""The kernel between policies for one pair at a time: plain modules, torch's KL, autograd."""

import torch
from torch.distributions import Categorical, Normal, kl_divergence


def pair_value(net, x_j, y_i, divergence, observations, temperature=0.5):
    """k(x_j, y_i) with autograd in x_j: plain modules, torch's own KL, moments of the mixture."""
    outputs = []
    for row in (x_j, y_i):
        weights = {name: value[0] for name, value in net._spec.split(row[None]).items()}
        outputs.append(torch.func.functional_call(net.particle(0), weights, (observations,)))
    if isinstance(outputs[0], tuple):
        p, q = (Normal(*out) for out in outputs)
        mean = 0.5 * (p.mean + q.mean)
        second = 0.5 * (p.variance + p.mean**2 + q.variance + q.mean**2)
        middle = Normal(mean, (second - mean**2).sqrt())
    else:
        p, q = (Categorical(logits=out) for out in outputs)
        middle = Categorical(probs=0.5 * (p.probs + q.probs))
    if divergence == "symmetric_kl":
        value = kl_divergence(p, q) + kl_divergence(q, p)
    else:
        value = 0.5 * (kl_divergence(p, middle) + kl_divergence(q, middle))
    value = value.sum(-1) if value.ndim == 2 else value
    return torch.exp(-value.mean() / temperature)


def by_pairs(net, x, y, divergence, observations):
    """Gram matrix [n, m] and gradients grad_{x_j} k(x_j, y_i) [n, m, d], one pair at a time."""
    gram, gradients = (
        torch.zeros(len(x), len(y)).to(x),
        torch.zeros(len(x), len(y), x.shape[1]).to(x),
    )
    for j in range(len(x)):
        for i in range(len(y)):
            own = x[j].clone().requires_grad_()
            value = pair_value(net, own, y[i].clone(), divergence, observations)
            gram[j, i] = value.detach()
            gradients[j, i] = torch.autograd.grad(value, own)[0]
    return gram, gradients
