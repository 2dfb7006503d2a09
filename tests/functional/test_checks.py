"""The shape checks: what they accept, and what their messages say."""

import pytest
import torch

from torchrl_stein.functional._checks import require_same_size


def test_accepts_equal_sizes():
    require_same_size("f", x=(torch.zeros(4, 2), -1), y=(torch.zeros(7, 9, 2), 2))


def test_message_names_both_arguments_sizes_and_shapes():
    message = r"f: y has size 3 in dimension -1 but x has 2 \(y \[7, 3\], x \[4, 2\]\)"
    with pytest.raises(ValueError, match=message):
        require_same_size("f", x=(torch.zeros(4, 2), -1), y=(torch.zeros(7, 3), -1))


@pytest.mark.parametrize(("dim", "needed"), [(-2, 2), (1, 2), (-3, 3)])
def test_message_for_too_few_dimensions(dim, needed):
    message = rf"f: x must have at least {needed} dimension\(s\), got shape \[4\]"
    with pytest.raises(ValueError, match=message):
        require_same_size("f", x=(torch.zeros(4), dim))
