"""A trial's epochs as an event file for TensorBoard, without TensorBoard.

`tf.summary.scalar` comes with TensorBoard; what it writes is a tensor with the metadata of the plugin `scalars`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf

NAME = "events.out.tfevents.0.fettle.v2"
"""TensorBoard reads files whose names hold `tfevents`."""


def write(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write a scalar for each metric of each epoch to `path`; the step is the epoch.

    Raises:
        OSError: the file can't be written.
    """
    messages = tf.compat.v1
    metadata = messages.SummaryMetadata(
        plugin_data=messages.SummaryMetadata.PluginData(plugin_name="scalars"), data_class="DATA_CLASS_SCALAR"
    )
    # A writer chooses its own file name, with the time and the host in it.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        writer = tf.summary.create_file_writer(folder)
        with writer.as_default():
            for epoch, metrics in enumerate(history):
                for name, value in metrics.items():
                    tf.summary.write(name, tf.constant(value, tf.float32), epoch, metadata)
        writer.close()
        (written,) = Path(folder).iterdir()
        written.replace(path)
