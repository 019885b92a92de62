"""Reproduced experiments, one file each."""

from spikemorph.recipes import cifar10_vgg, fashion_mnist, lidar, ps_mnist, s_mnist, s_mnist_784
from spikemorph.recipes.recipe import Recipe

_ALL = (
    fashion_mnist.RECIPE,
    cifar10_vgg.RECIPE,
    s_mnist.RECIPE,
    ps_mnist.RECIPE,
    s_mnist_784.RECIPE,
    lidar.RECIPE,
)

RECIPES: dict[str, Recipe] = {each.name: each for each in _ALL}
"""By name on the command line."""
