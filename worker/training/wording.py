"""TensorFlow's errors in a few words: they reach people who know neither the graph nor the stacks around them."""

from __future__ import annotations

import re

import tensorflow as tf

from worker.trainer.trainable import Explained

MOST_CHARACTERS = 300
"""Of what TensorFlow says; all of it is in the trial's log."""
SURROUNDINGS = re.compile(
    r"Graph execution error:|Detected at node |<stack traces unavailable>|\d+ root error\(s\) found|\[\[|Hint: |"
    r"This isn't available when"
)
"""How lines begin that say where an error was, not what."""
ROOT_ERROR = re.compile(r"\(\d+\) ")
"""What stands before each of several errors."""
OPERATION = re.compile(r"\s*\[Op:\w+\](?: name:.*)?$")
"""What stands behind, of the call."""


def essence(error: tf.errors.OpError) -> str:
    """The first line of an error that says what is wrong."""
    for line in error.message.splitlines():
        text = line.strip()
        is_root = ROOT_ERROR.match(text)
        # What is set in belongs to a stack.
        if not text or SURROUNDINGS.match(text) or (line[0].isspace() and is_root is None):
            continue
        text = OPERATION.sub("", text if is_root is None else text[is_root.end() :])
        return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"
    return type(error).__name__


def in_words(error: Exception) -> Exception:
    """`error`, or where it is TensorFlow's one that says so in words, of which it is the cause."""
    if not isinstance(error, tf.errors.OpError):
        return error
    if isinstance(error, tf.errors.ResourceExhaustedError):
        sentence = (
            "The device has too little memory for this trial: use fewer or smaller layers, or a smaller batch_size "
            "with more gradient_accumulation_steps."
        )
    else:
        sentence = "TensorFlow failed while it compiled or ran the program of this trial."
    told = Explained(type(error).__name__, f"{sentence} It says: {essence(error)}")
    told.__cause__ = error
    return told
