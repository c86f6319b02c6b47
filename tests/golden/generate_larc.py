#!/usr/bin/env python3
"""Writes the cases of `first_order/larc`: NVIDIA apex's LARC around torch.optim.SGD, in f64.

usage: generate_larc.py TARGET_FOLDER

The scaling of gradients is written from the equations of apex's documentation; the steps are taken by torch 2.15.0,
installed by pip. The same version gives the same bytes.
"""
import json
import pathlib
import sys

import torch

SHAPES = {"w": (3, 4), "b": (5,), "k": (2, 3, 2, 2), "s": ()}
STEPS = 10
CONFIGS = [
    {"lr": 0.05, "momentum": 0.9},
    {"lr": 0.002, "momentum": 0.9, "weight_decay": 0.1},
    {"lr": 0.05, "momentum": 0.8, "nesterov": True, "trust_coefficient": 0.1, "weight_decay": 0.01},
    {"lr": 0.05, "momentum": 0.0, "clip": False, "trust_coefficient": 1.0, "eps": 1e-3},
]


def scale(p, lr, config):
    """The local learning rate over the global one, on the gradient with its decay."""
    decay = config.get("weight_decay", 0.0)
    weights, gradient = p.detach().norm(), p.grad.norm()
    denominator = gradient + decay * weights + config.get("eps", 1e-8)
    if weights == 0 or gradient == 0:
        return
    local = config.get("trust_coefficient", 0.02) * weights / denominator
    if config.get("clip", True):
        local = min(local / lr, torch.ones(()))
    p.grad = (p.grad + decay * p.detach()) * local


def flat(x):
    return x.detach().flatten().tolist()


def case(seed, config):
    rng = torch.Generator().manual_seed(seed)
    draw = lambda shape: torch.randn(shape, generator=rng, dtype=torch.float64)
    params = {n: torch.nn.Parameter(draw(s)) for n, s in SHAPES.items()}
    init = [{"name": n, "shape": list(s), "init": flat(params[n])} for n, s in SHAPES.items()]
    size = {n: 10 ** (1.5 * torch.rand((), generator=rng).item() - 1) for n in SHAPES}
    options = {k: config[k] for k in ("lr", "momentum", "nesterov") if k in config}
    sgd = torch.optim.SGD(params.values(), foreach=False, **options)
    steps = []
    for step in range(1, STEPS + 1):
        grads = {n: size[n] * draw(s) for n, s in SHAPES.items()}
        if step == 6:
            grads["b"] = None
        if step == 8:
            for n in ("w", "b", "k"):
                grads[n].view(-1)[0] = 0
        for n, p in params.items():
            p.grad = None if grads[n] is None else grads[n].clone()
            if p.grad is not None:
                scale(p, config["lr"], config)
        sgd.step()
        shown = {n: None if g is None else flat(g) for n, g in grads.items()}
        steps.append({"grads": shown, "expect": {n: flat(p) for n, p in params.items()}})
    buffers = lambda p: {k: {"shape": list(x.shape), "data": flat(x)} for k, x in sgd.state[p].items() if x is not None}
    state = {n: buffers(p) for n, p in params.items()}
    origin = "torch 2.15.0 torch.optim.SGD behind the equations of NVIDIA apex's LARC"
    out = {"optimizer": "LARC", "origin": origin, "dtype": "f64", "config": config, "params": init, "steps": steps}
    return out | {"final_state": state, "notes": "no step has gradients of zeros, where apex leaves decay out"}


def main():
    target = pathlib.Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for index, config in enumerate(CONFIGS):
        text = json.dumps(case(70 + index, config))
        (target / f"larc_{index:02d}_f64.json").write_text(text)


if __name__ == "__main__":
    main()
