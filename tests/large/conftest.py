"""TensorFlow as a trainer has it: how it rewrites graphs is what this suite is about."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from worker.training.device import configure

configure()
