#!/usr/bin/env python3
"""Writes the cases of `first_order/relatives`: rules of pytorch_optimizer with options that other cases leave alone, and
with learning rates that change between steps.

usage: generate_relatives.py TARGET_FOLDER

torch 2.15.0 and pytorch_optimizer 4.1.0 are installed by pip. The same versions give the same bytes.
"""
import json
import pathlib
import sys

import pytorch_optimizer
import torch

SHAPES = {"w": (3, 4), "b": (5,), "k": (2, 3, 2, 2), "s": ()}
STEPS = 10
# class, options, learning rates from these steps on
RUNS = [
    ("AdaBelief", dict(lr=0.02, rectify=True, weight_decay=0.1, weight_decouple=False), {}),
    ("AdaBelief", dict(lr=0.02, rectify=True, betas=(0.8, 0.9), ams_bound=True), {4: 0.01}),
    ("Yogi", dict(lr=0.05, eps=1e-6, weight_decay=0.1, weight_decouple=False), {5: 0.01}),
    ("Adan", dict(lr=0.02, betas=(0.9, 0.8, 0.95), weight_decay=0.2, weight_decouple=True), {5: 0.05}),
    ("ADOPT", dict(lr=0.02, eps=0.5, maximize=True), {5: 0.05}),
    ("AdEMAMix", dict(lr=0.02, t_alpha_beta3=20.0, alpha=8.0, betas=(0.5, 0.9, 0.99)), {5: 0.01}),
    ("MARS", dict(lr=0.01, lr_1d=0.05, ams_bound=True, weight_decay=0.1, weight_decay_1d=0.3), {5: 0.02}),
    ("MARS", dict(lr=0.01, mars_type="lion", optimize_1d=True, gamma=0.1, weight_decay=0.1), {}),
    ("StableAdamW", dict(lr=0.05, betas=(0.5, 0.9), weight_decay=0.3, eps=1e-3), {5: 0.01}),
    ("LaProp", dict(lr=0.02, ams_bound=True, betas=(0.5, 0.8), weight_decay=0.1), {4: 0.1, 8: 0.01}),
    ("QHAdam", dict(lr=0.02, nus=(0.5, 0.3), weight_decay=0.1, weight_decouple=True), {5: 0.01}),
    ("QHM", dict(lr=0.1, nu=0.5, momentum=0.9, weight_decay=0.1, weight_decouple=True), {5: 0.05}),
    ("AggMo", dict(lr=0.05, betas=(0.5, 0.8), weight_decay=0.1), {5: 0.01}),
    ("AggMo", dict(lr=0.05, betas=(0.0, 0.9, 0.99, 0.999), maximize=True), {}),
    ("MADGRAD", dict(lr=0.05, momentum=0.5, weight_decay=0.1, weight_decouple=True), {5: 0.2}),
    ("MADGRAD", dict(lr=0.05, momentum=0.0, eps=1e-2, maximize=True), {5: 0.2}),
    ("AdaBound", dict(lr=0.02, gamma=0.5, ams_bound=True, betas=(0.5, 0.7)), {5: 0.01}),
    ("AdaBound", dict(lr=0.02, gamma=2.0, weight_decay=0.1, weight_decouple=False), {5: 0.2}),
    ("AdaMod", dict(lr=0.1, betas=(0.9, 0.95, 0.9), weight_decay=0.1), {5: 0.02}),
    ("AdaMod", dict(lr=0.1, betas=(0.8, 0.9, 0.5), weight_decay=0.1, weight_decouple=False), {}),
    ("DiffGrad", dict(lr=0.02, ams_bound=True, betas=(0.5, 0.6), weight_decay=0.1), {5: 0.1}),
    ("Adai", dict(lr=0.1, betas=(0.5, 0.9), weight_decay=0.1), {5: 0.02}),
    ("Adai", dict(lr=0.1, eps=0.1, weight_decay=0.1, weight_decouple=True), {}),
    ("Amos", dict(lr=0.3, beta=0.9, momentum=0.8), {5: 0.1}),
    ("Amos", dict(lr=0.5, beta=0.5, c_coef=2.0, d_coef=1.0, maximize=True), {}),
    ("PID", dict(lr=0.01, momentum=0.9), {5: 0.02}),
    ("PID", dict(lr=0.01, momentum=0.5, dampening=0.2, integral=2.0, derivative=3.0, weight_decay=0.1), {}),
    ("Tiger", dict(lr=0.01, weight_decay=0.1, weight_decouple=False, maximize=True), {5: 0.02}),
]


def flat(x):
    return torch.as_tensor(x).detach().flatten().tolist()


def state_of(opt, params):
    """Tensors and numbers of every parameter."""
    out = {}
    for n, p in params.items():
        kept = {}
        for name, value in opt.state[p].items():
            if isinstance(value, torch.Tensor):
                kept[name] = {"shape": list(value.shape), "data": flat(value)} if value.ndim else float(value)
            elif isinstance(value, (int, float)):
                kept[name] = value
        if kept:
            out[n] = kept
    return out


def case(seed, name, config, rates):
    rng = torch.Generator().manual_seed(seed)
    draw = lambda shape: torch.randn(shape, generator=rng, dtype=torch.float64)
    init = {n: draw(s) for n, s in SHAPES.items()}
    params = {n: torch.nn.Parameter(x.clone()) for n, x in init.items()}
    size = {n: 10.0 ** float(torch.rand((), generator=rng) * 1.5 - 1.0) for n in SHAPES}
    opt = getattr(pytorch_optimizer, name)(list(params.values()), foreach=False, **config)
    steps = []
    for step in range(1, STEPS + 1):
        grads = {n: size[n] * draw(s) * (0.0 if step == 4 else 1.0) for n, s in SHAPES.items()}
        if step == 6:
            grads["b"] = None
        if step == 8:
            for g in grads.values():
                g.view(-1)[0] = 0.0
        one = {"grads": {n: None if g is None else flat(g) for n, g in grads.items()}}
        if step in rates:
            opt.param_groups[0]["lr"] = rates[step]
            one["set"] = {"lr": rates[step]}
        for n, p in params.items():
            p.grad = None if grads[n] is None else grads[n].clone()
        opt.step()
        steps.append(one | {"expect": {n: flat(p) for n, p in params.items()}})
    out = {"optimizer": name, "origin": f"pytorch_optimizer 4.1.0 {name}", "dtype": "f64", "config": config}
    out |= {"params": [{"name": n, "shape": list(s), "init": flat(init[n])} for n, s in SHAPES.items()]}
    return out | {"steps": steps, "final_state": state_of(opt, params), "notes": "one step counter per group"}


def main():
    target = pathlib.Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    counts = {}
    for seed, (name, config, rates) in enumerate(RUNS):
        number = counts[name] = counts.get(name, -1) + 1
        path = target / f"relatives_{name.lower()}_{number:02d}_f64.json"
        path.write_text(json.dumps(case(seed, name, config, rates)) + "\n")


if __name__ == "__main__":
    main()
