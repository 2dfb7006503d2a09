"""Bandwidth rules: a statistic of squared distances over a denominator."""

import math


def lower_median(values):
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2]


def mean(values):
    total = 0.0
    for value in values:
        total += value
    return total / len(values)


def denominator(name, n):
    if name == "log(n+1)":
        return math.log(n + 1)
    if name == "2log(n+1)":
        return 2.0 * math.log(n + 1)
    if name == "log(n)":
        return math.log(n)
    raise ValueError(name)
