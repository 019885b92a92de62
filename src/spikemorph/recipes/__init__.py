"""Reproduced experiments, one file each."""

from spikemorph.recipes import fashion_mnist
from spikemorph.recipes.recipe import Recipe

RECIPES: dict[str, Recipe] = {each.name: each for each in (fashion_mnist.RECIPE,)}
"""By name on the command line."""
