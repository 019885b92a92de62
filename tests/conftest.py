"""Two threads, fixed seeds, no deadlines: a test gives the same answer on every run and machine."""

from __future__ import annotations

import os
import random

import hypothesis
import numpy as np
import pytest
import torch

hypothesis.settings.register_profile("people", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "people")

torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002, TID251 - for libraries that draw from the global generator
    torch.manual_seed(0)
