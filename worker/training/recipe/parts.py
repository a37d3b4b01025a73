"""The parts of a recipe's text that are the same in each; `@NAMES` are filled in."""

from __future__ import annotations

OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop"}
"""Keras' class of each update rule."""

STRATIFIED = "y[samples]"

SPLIT = '''
def split(y):
    """The numbers of the samples for training, validation and test, as the study split them."""

    def parted(samples, count):
        return train_test_split(samples, test_size=count, random_state=SPLIT_SEED, stratify=@STRATA)

    rest, test = np.arange(len(y)), np.arange(0)
    if TEST_FRACTION:
        rest, test = parted(rest, math.ceil(TEST_FRACTION * len(y)))
    train, validation = parted(rest, math.ceil(VALIDATION_FRACTION * len(y)))
    return train, validation, test
'''

START = '''
def start(network):
    """Give the network the weights that the trial started from, which its seed alone decides."""
    random = np.random.default_rng([SEED, 0])
    variables = [v for layer in network.layers for v in layer.trainable_variables]
    for place, limit in @LIMITS:
        shape = variables[place].shape
        drawn = (random.random(math.prod(shape), np.float32) * 2.0 - 1.0) * np.float32(limit)
        variables[place].assign(drawn.reshape(shape))
'''

KERAS_START = '''
def start(network):
    """Give the network the weights that the trial started from: what Keras' layers draw by these seeds."""
    variables = [v for layer in network.layers for v in layer.trainable_variables]
    initializers = {
@INITIALIZERS    }
    for place, initializer in initializers.items():
        variables[place].assign(initializer(variables[place].shape, variables[place].dtype))
'''

PENALISE = """    for variable in variables:
        if variable.name.endswith("kernel"):
            variable.regularizer = keras.regularizers.L1L2(@L1, @L2)
"""

DECIBELS = """    decibels = keras.Model(raw, @BEFORE).predict(x_train, batch_size=256, verbose=0)
    mean = decibels.mean((0, 1), dtype="float64").astype("float32")
    variance = np.maximum(decibels.var((0, 1), dtype="float64").astype("float32"), @LEAST)
    normalization = @FITTED"""

RATES = {
    "constant": "keras.ops.ones_like(epoch)",
    "exponential": "DECAY_RATE ** (epoch / DECAY_EPOCHS)",
    "step": "DECAY_RATE ** keras.ops.floor(epoch / DECAY_EPOCHS)",
    "inverse_time": "1.0 / (1.0 + DECAY_RATE * epoch / DECAY_EPOCHS)",
    "cosine": "FINAL_FRACTION + (1.0 - FINAL_FRACTION) * (1.0 + keras.ops.cos(math.pi * progress)) / 2.0",
    "polynomial": "FINAL_FRACTION + (1.0 - FINAL_FRACTION) * (1.0 - progress) ** POWER",
}
"""What the learning rate is multiplied by after any warmup, by schedule."""

PROGRESS = "        progress = keras.ops.clip(epoch / (SCHEDULED_EPOCHS - WARMUP_EPOCHS), 0.0, 1.0)\n"

SCHEDULE = '''
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate at a step: it rises linearly during the warmup, then follows its curve."""

    def __init__(self, steps_per_epoch):
        super().__init__()
        self.steps_per_epoch = steps_per_epoch

    def __call__(self, step):
        step = keras.ops.cast(step, "float64")
        epoch = keras.ops.maximum(step / self.steps_per_epoch - WARMUP_EPOCHS, 0.0)
@PROGRESS        factor = @FACTOR
        warmup_steps = WARMUP_EPOCHS * self.steps_per_epoch
        rising = (step + 1.0) / max(warmup_steps, 1.0)
        return keras.ops.cast(LEARNING_RATE * keras.ops.where(step < warmup_steps, rising, factor), "float32")

    def get_config(self):
        return {"steps_per_epoch": self.steps_per_epoch}


def optimizer(steps_per_epoch):
    """The update rule, with Keras' own constants where none are given."""
    learning_rate = Schedule(steps_per_epoch)
    return @MAKE
'''

MAIN = '''
def improves(value, best, rises, least_change=0.0):
    """Whether a metric is better than the best one so far."""
    return best is None or (value > best + least_change if rises else value < best - least_change)


def train(x, y):
    """The model of the selected epoch, the number of that epoch, and its metrics."""
    x = x.reshape(len(x), *SHAPE)
    train, validation, _ = split(y)
    x_train, y_train = x[train], y[train]
    keras.utils.set_random_seed(SEED)
    model, network = build(x_train, y_train)
    start(network)
    network.compile(optimizer(-(-len(train) // BATCH_SIZE)), LOSS, metrics=[SCORE])
    held_out = x[validation], target_of(y[validation], y_train)
    target, unit = target_of(y_train, y_train), unit_of(y_train)
    selected, best, stopping_best, stale = None, None, None, 0
    for epoch in range(EPOCHS):
        order = np.random.default_rng([SEED, 1, epoch]).permutation(len(train))
        history = network.fit(
            x_train[order],
            target[order],
            batch_size=BATCH_SIZE,
            shuffle=False,
            validation_data=held_out,
            validation_batch_size=512,
            verbose=0,
        ).history
        metrics = {name: values[0] * (unit if name.endswith(SCORE) else 1.0) for name, values in history.items()}
        print(f"epoch {epoch}: " + ", ".join(f"{name} {value:.6g}" for name, value in metrics.items()))
        if OBJECTIVE is None or improves(metrics[OBJECTIVE], best, MAXIMIZE):
            best = None if OBJECTIVE is None else metrics[OBJECTIVE]
            selected = epoch, metrics, network.get_weights()
        if STOPPING is not None:
            name, patience, least_change, rises = STOPPING
            if improves(metrics[name], stopping_best, rises, least_change):
                stopping_best, stale = metrics[name], 0
            else:
                stale += 1
            if 0 < stale >= patience:
                break
    network.set_weights(selected[2])
    return model, selected[0], selected[1]


def main():
    """Train, print the selected epoch's metrics as the last line, and save the model where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\\n")[0])
@FILE    parser.add_argument("--model", help="where to save the trained model, such as model.keras")
    arguments = parser.parse_args()
    model, epoch, metrics = train(*load(@DATA))
    if arguments.model:
        model.save(arguments.model)
    print(f"selected epoch {epoch}: " + ", ".join(f"{name}={value!r}" for name, value in metrics.items()))


if __name__ == "__main__":
    main()
'''
