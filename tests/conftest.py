"""What every test stands on: shapes checked at run time, one thread, fixed seeds, real data."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import jaxtyping

# Before any import of ours: the hook rewrites modules as they load. An int may stand for a float,
# as for the static checker.
jaxtyping.install_import_hook(
    ["core", "kernels", "domains"], "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

# Planted faults break comparisons of thousands of values on purpose. With CI set, pytest would spell
# out every difference, minutes each, only for the test to expect the failure.
os.environ.pop("CI", None)

# Several workers share the cores; more threads each only fight.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """The tests' run-time shape checks are no part of what is compiled."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def motif_data() -> Path:
    """The root of the real data sets; a test that needs them fails without."""
    root = os.environ.get("MOTIF_DATA")
    if not root or not Path(root).is_dir():
        pytest.fail("MOTIF_DATA must name the data folder")
    return Path(root)
