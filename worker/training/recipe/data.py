"""The code of a recipe that gets the data: `load(file)`, which gives features and targets as the data set has them.

A data set that a script can get by itself has a loader here, by name. Any other is read from an `.npz` file that the
user gives: nothing is needed for a new kind of data, as long as its samples lie in one array.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

from worker.training import shape_images as shapes
from worker.training.data import DatasetInfo

SCIKIT_LEARN = ("digits", "breast-cancer", "wine", "diabetes")


def loading(info: DatasetInfo) -> tuple[str, bool]:
    """The code of `load`, and whether it needs a file from the user.

    `load` gives features, [n, …], and targets, [n], as the data set has them: int32 classes or float32 values.
    """
    if info.name in SCIKIT_LEARN:
        return _from_scikit_learn(info), False
    if info.name in _BUNDLED:
        return _BUNDLED[info.name](info), False
    return _from_file(info), True


def _from_scikit_learn(info: DatasetInfo) -> str:
    name = info.name.replace("-", "_")
    return f'''def load(file):
    """The data set {info.name} of scikit-learn."""
    from sklearn.datasets import load_{name}

    x, y = load_{name}(return_X_y=True)
    return x.astype("float32").reshape(-1, {", ".join(map(str, info.shape))}), y.astype({_target_type(info)!r})
'''


def _drawn_shapes(info: DatasetInfo) -> str:
    """The module that draws the images, which is NumPy alone, and a call of it."""
    source = inspect.getsource(shapes)
    drawing = source.partition("from __future__ import annotations\n")[2].strip()
    drawing = re.sub(r"\bSEED\b", "DRAWING_SEED", drawing)  # the recipe has a SEED of its own
    return f'''# How the images of the data set {info.name} are drawn.

{drawing}


def load(file):
    """The images, drawn anew."""
    images, labels = shapes()
    return images.reshape(-1, SIDE, SIDE, 1), labels
'''


def _from_file(info: DatasetInfo) -> str:
    shape = ", ".join(["n", *map(str, info.shape)])
    return f'''def load(file):
    """The arrays `x`, [{shape}], and `y`, [n], of an .npz file, in the order of the data set."""
    with np.load(file, allow_pickle=False) as arrays:
        x, y = arrays["x"], arrays["y"]
    if len(x) != {info.n} or x.shape[1:] != {tuple(info.shape)!r}:
        raise SystemExit(f"Expected x of shape {(info.n, *info.shape)}. Received: {{x.shape}}")
    return x, y.astype({_target_type(info)!r})
'''


def _target_type(info: DatasetInfo) -> str:
    return "int32" if info.task == "classification" else "float32"


_BUNDLED: dict[str, Callable[[DatasetInfo], str]] = {"shapes": _drawn_shapes}
