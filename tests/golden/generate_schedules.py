#!/usr/bin/env python3
"""Writes the cases of `schedulers/packages`: schedules of transformers, timm and optax, in f64.

usage: generate_schedules.py TARGET_FOLDER

transformers, timm, torch and optax are installed by pip; `origin` names their versions.
"""
import json
import pathlib
import sys

import jax

jax.config.update("jax_enable_x64", True)
import optax
import timm
import torch
import transformers
from timm.scheduler import CosineLRScheduler
from transformers import optimization

STEPS = 70


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))], lr=1.0)


def of_transformers(make, **arguments):
    """Multipliers of the base rate 1, and where they come from."""
    sgd = optimizer()
    schedule = make(sgd, **arguments)
    factors = []
    for _ in range(STEPS):
        factors.append(schedule.get_last_lr()[0])
        sgd.step()
        schedule.step()
    return factors, f"transformers {transformers.__version__}, {make.__name__}"


def of_timm(**arguments):
    schedule = CosineLRScheduler(optimizer(), **arguments)
    return [schedule._get_lr(t)[0] for t in range(STEPS)], f"timm {timm.__version__}, CosineLRScheduler"


def of_optax(kind, boundaries):
    schedule = optax.piecewise_interpolate_schedule(kind, 1.0, boundaries)
    return [float(schedule(t)) for t in range(STEPS)], f"optax {optax.__version__}, piecewise_interpolate_schedule"


def cases():
    restarts = optimization.get_cosine_with_hard_restarts_schedule_with_warmup
    for warmup, total, cycles in [(10, 60, 1), (7, 55, 3), (0, 40, 2), (12, 70, 5)]:
        found = of_transformers(restarts, num_warmup_steps=warmup, num_training_steps=total, num_cycles=cycles)
        yield "hard_restarts", {"warmup": warmup, "total": total, "cycles": cycles}, found
    polynomial = optimization.get_polynomial_decay_schedule_with_warmup
    for warmup, total, lr_end, power in [(10, 60, 1e-7, 1.0), (5, 50, 0.1, 2.0), (0, 33, 0.02, 0.5)]:
        found = of_transformers(
            polynomial, num_warmup_steps=warmup, num_training_steps=total, lr_end=lr_end, power=power
        )
        yield "polynomial", {"warmup": warmup, "total": total, "lr_end": lr_end, "power": power}, found
    for config in [
        {"t_initial": 20, "lr_min": 0.01, "cycle_limit": 3, "cycle_decay": 0.5},
        {"t_initial": 10, "cycle_mul": 2.0, "cycle_limit": 2, "cycle_decay": 0.7, "k_decay": 1.5},
        {"t_initial": 8, "cycle_mul": 1.5, "cycle_limit": 4, "warmup_t": 5, "warmup_lr_init": 0.001},
        {"t_initial": 25, "warmup_t": 6, "warmup_prefix": True, "lr_min": 0.05, "cycle_limit": 2},
    ]:
        ours = {key.replace("warmup_t", "warmup"): value for key, value in config.items()}
        yield "cycles", ours, of_timm(**config)
    for kind, boundaries in [("linear", {10: 0.5, 30: 0.2, 50: 3.0}), ("cosine", {5: 2.0, 40: 0.1})]:
        points, factor = [[0, 1.0]], 1.0
        for step, scale in boundaries.items():
            factor *= scale
            points.append([step, factor])
        yield "piecewise", {"points": points, "interpolation": kind}, of_optax(kind, boundaries)


def main():
    target = pathlib.Path(sys.argv[1])
    counts = {}
    for kind, config, (multiplier, origin) in cases():
        number = counts[kind] = counts.get(kind, -1) + 1
        case = {"config": {"kind": kind, **config}, "multiplier": multiplier, "notes": "", "origin": origin}
        (target / f"packages_{kind}_{number}.json").write_text(json.dumps(case))


main()
