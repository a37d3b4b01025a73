"""Trains the trials of external.json outside the service: `python external.py STUDY [URL]`, as often as you like."""

import math
import random
import sys

from app.client import FettleClient

draw = random.Random(0)
POINTS = [(x, math.sin(3 * x) + draw.gauss(0, 0.1)) for x in (draw.uniform(-1, 1) for _ in range(200))]

with FettleClient(*sys.argv[2:]) as client:
    for trial in client.take(client.find_study(sys.argv[1]).id, worker="curve"):
        rate, l2 = trial.hyperparameters["learning_rate"], trial.hyperparameters["l2"]
        weights = [0.0] * (trial.hyperparameters["degree"] + 1)
        for epoch in range(30):
            for x, y in POINTS[:150]:
                error = sum(w * x**power for power, w in enumerate(weights)) - y
                weights = [w - rate * (error * x**power + l2 * w) for power, w in enumerate(weights)]
            errors = [sum(w * x**power for power, w in enumerate(weights)) - y for x, y in POINTS[150:]]
            verdict = trial.report(epoch, {"val_loss": sum(e * e for e in errors) / len(errors)})
            if verdict.should_prune:
                trial.prune()
                break
            if verdict.should_stop:
                trial.complete()
                break
        else:
            trial.complete()
