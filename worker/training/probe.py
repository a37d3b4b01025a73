"""Says on standard output, as JSON, which TensorFlow is here, which GPUs it sees, and how long its import took."""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    """Import TensorFlow and say so."""
    began = time.perf_counter()
    import tensorflow as tf

    gpus = len(tf.config.list_physical_devices("GPU"))
    about = {
        "tensorflow": tf.__version__,
        "tensorflow_gpus": gpus,
        "import_seconds": round(time.perf_counter() - began, 2),
    }
    sys.stdout.write(f"{json.dumps(about)}\n")


if __name__ == "__main__":
    main()
