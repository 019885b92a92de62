"""Reproduced experiments, one file each."""

from spikemorph.recipes import (
    bccd,
    camvid,
    cifar10_vgg,
    craft,
    fashion_mnist,
    lidar,
    ps_mnist,
    s_mnist,
    s_mnist_784,
    training_free_cifar10,
    training_free_photos,
)
from spikemorph.recipes.recipe import Recipe

_ALL = (
    fashion_mnist.RECIPE,
    cifar10_vgg.RECIPE,
    s_mnist.RECIPE,
    ps_mnist.RECIPE,
    s_mnist_784.RECIPE,
    lidar.RECIPE,
    training_free_photos.MOBILENET,
    training_free_photos.EFFICIENTNET,
    training_free_cifar10.RESNET18,
    training_free_cifar10.VGG,
    camvid.RECIPE,
    bccd.RECIPE,
    craft.RECIPE,
)

RECIPES: dict[str, Recipe] = {each.name: each for each in _ALL}
"""By name on the command line."""
