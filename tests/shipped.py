"""Recipes whose networks are shipped; the others make them anew, which takes minutes, and have own tests."""

from __future__ import annotations

from spikemorph.recipes import RECIPES

SHIPPED = sorted(name for name, recipe in RECIPES.items() if recipe.rebuild is None)
