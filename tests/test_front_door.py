"""The public surface is small, pinned, and light to import."""

from __future__ import annotations

import subprocess
import sys

import spikemorph

HEAVY = ("torchvision", "sklearn", "numba", "typer", "rich", "scipy", "matplotlib", "nir", "PIL")


def test_public_names_are_sorted_and_there() -> None:
    assert spikemorph.__all__ == sorted(spikemorph.__all__, key=str.casefold)
    assert len(spikemorph.__all__) <= 36
    for name in spikemorph.__all__:
        assert getattr(spikemorph, name).__doc__, name


def test_nothing_else_looks_public() -> None:
    """What is not in __all__ is a folder of the package."""
    modules = {name for name, value in vars(spikemorph).items() if type(value).__name__ == "module"}
    others = (
        {name for name in vars(spikemorph) if not name.startswith("_")} - modules - set(spikemorph.__all__)
    )
    assert others == set()


def test_import_is_light() -> None:
    code = f"import sys, spikemorph; print([m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
