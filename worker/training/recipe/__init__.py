"""Recipes: plain Keras scripts that train a trial again without Fettle.

A recipe is written from the exported model's own layers (`graph`), the way its data are got (`data`), and the loop that
`worker.training` runs, written once more in Keras' words (`script`, `parts`).
"""

from __future__ import annotations

from worker.training.recipe.graph import NoRecipe
from worker.training.recipe.script import recipe

__all__ = ["NoRecipe", "recipe"]
