"""Fettle's worker: a supervisor that holds leases, and the trainer child that holds TensorFlow."""
