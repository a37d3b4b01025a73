"""The Fettle service: domain, store, tuning, HTTP API, client and commands. Never imports TensorFlow or `worker`."""

__version__ = "0.1.0"
