"""Settings of the command line that would change nothing."""

import pytest

from torchrl_stein.training import check_overrides


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "~loss.kernel.bandwidth",
        "+env_options.reward=sparse",
        "+env.options.horizon=9",
        "++env.options.horizon=9",
        "+loss.kernel._partial_=true",
        "+trust_region.cost.num_iterations=500",
    ],
)
def test_arguments_of_classes_may_be_added(override):
    check_overrides([override])


@pytest.mark.parametrize(
    "override", ["+loss.temprature=3", "++seeed=1", "+task=hopper", "+kernel=3", "+options"]
)
def test_others_may_not(override):
    name = override.lstrip("+").partition("=")[0]
    with pytest.raises(ValueError, match=f"there is no setting {name}; "):
        check_overrides(["seed=1", override])
