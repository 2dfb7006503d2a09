"""Projection of atoms onto a fixed support (Bellemare et al. 2017), one atom after the other."""


def project(probabilities, atoms, support):
    """Lists of M masses, M places and N points; N masses."""
    masses = [0.0] * len(support)
    for mass, place in zip(probabilities, atoms, strict=True):
        if place <= support[0]:
            masses[0] += mass
        elif place >= support[-1]:
            masses[-1] += mass
        else:
            above = next(i for i, point in enumerate(support) if point > place)
            low, high = support[above - 1], support[above]
            masses[above] += mass * (place - low) / (high - low)
            masses[above - 1] += mass * (high - place) / (high - low)
    return masses
