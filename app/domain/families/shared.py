"""The hyperparameters that several families have: regularisation, and how the weights are optimised."""

from __future__ import annotations

from app.domain.families.declaration import OPTIMIZERS, SCHEDULES, choice, flag, float_parameter, int_parameter

_L1 = float_parameter("l1", 0.0, 0.0, 10.0, "Penalty l1·Σ|w| over kernels, added to the loss of each batch.")
_L2 = float_parameter("l2", 0.0, 0.0, 10.0, "Penalty l2·Σw² over kernels, added to the loss of each batch.")
_DROPOUT = float_parameter("dropout", 0.0, 0.0, 0.95, "Share of units dropped in training after each hidden layer.")
_SMOOTHING = float_parameter("label_smoothing", 0.0, 0.0, 0.9, "Share of the target spread evenly over all classes.")
REGULARIZATION = (_L1, _L2, _DROPOUT, _SMOOTHING)
PENALTIES = (_L1, _L2, _SMOOTHING)
"""Regularisation that any network takes, whatever its layers."""

OPTIMIZATION = (
    choice(
        "optimizer", "adam", OPTIMIZERS, "Update rule, with Keras' constants where not given here.", structural=True
    ),
    float_parameter("momentum", 0.0, 0.0, 0.999, "Momentum of sgd and rmsprop; the others ignore it."),
    flag("nesterov", "Nesterov's momentum for sgd; the others ignore it."),
    float_parameter(
        "weight_decay", 0.0, 0.0, 1.0, "Decoupled decay: weights shrink by learning_rate·weight_decay at each step."
    ),
    float_parameter("global_clipnorm", 0.0, 0.0, 1e6, "Largest global norm of the gradient; 0 leaves it alone."),
    float_parameter("learning_rate", 1e-3, 1e-10, 100.0, "Learning rate at the start, after any warmup."),
    choice("lr_schedule", "constant", SCHEDULES, "How the learning rate falls over the epochs.", structural=False),
    float_parameter("decay_rate", 0.5, 0.0, 1e3, "r of the exponential, step and inverse_time schedules."),
    float_parameter(
        "decay_epochs", 5.0, 1e-3, 1e6, "d of the exponential, step and inverse_time schedules, in epochs."
    ),
    float_parameter(
        "final_fraction", 0.0, 0.0, 1.0, "a of the cosine and polynomial schedules: final over initial rate."
    ),
    float_parameter("power", 1.0, 1e-3, 100.0, "p of the polynomial schedule."),
    float_parameter(
        "warmup_epochs", 0.0, 0.0, 1e6, "Epochs over which the rate first rises linearly; below the study's epochs."
    ),
    int_parameter("batch_size", 32, 1, 65_536, "Samples that go through the network at once."),
    int_parameter(
        "gradient_accumulation_steps",
        1,
        1,
        1_024,
        "Batches whose gradients are added up for one step: that of a batch so many times as large.",
    ),
)
