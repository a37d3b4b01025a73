"""The trainer: what runs in the child process, its handle in the worker, and what the two say to each other.

Nothing here imports TensorFlow but for `__main__`, which runs in the child alone.
"""
