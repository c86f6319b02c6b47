#!/usr/bin/env python3
"""Writes the cases of `first_order/polyak`: SPS_max, MoMo and MoMo-Adam by their authors' code, in f64.

usage: generate_polyak.py SPS_PY TARGET_FOLDER

SPS_PY is sps/sps.py of github.com/IssamLaradji/sps at 6d112a1; momo-opt 0.1.0 and torch are installed by
pip. The same versions give the same bytes.
"""
import importlib.util
import json
import pathlib
import sys

import momo
import torch

torch.set_default_dtype(torch.float64)  # momo keeps <g, x> in the default type
SHAPES = {"w": (3, 4), "b": (5,), "k": (2, 3, 2, 2), "s": ()}
STEPS = 10


class Problem:
    """A noisy quadratic, `floor` above zero at its minimum."""

    def __init__(self, seed, floor, noise, size):
        self.rng = torch.Generator().manual_seed(seed)
        draw = lambda shape: torch.randn(shape, generator=self.rng)
        self.params = {n: torch.nn.Parameter(size * draw(s)) for n, s in SHAPES.items()}
        self.init = {n: p.detach().clone() for n, p in self.params.items()}
        self.weights = {n: torch.exp(draw(s)) for n, s in SHAPES.items()}
        self.targets = {n: 0.3 * draw(s) for n, s in SHAPES.items()}
        self.floor, self.noise = floor, noise

    def evaluate(self, step):
        """Sets gradients; returns the loss. Step 4 has none but zeros, step 8 a zero in every parameter."""
        loss = torch.tensor(self.floor)
        for n, p in self.params.items():
            noise = self.noise * torch.randn(SHAPES[n], generator=self.rng)
            error = p.detach() - self.targets[n] + noise
            loss = loss + 0.5 * (self.weights[n] * error**2).sum()
            p.grad = self.weights[n] * error * (0.0 if step == 4 else 1.0)
            if step == 8:
                p.grad.view(-1)[0] = 0.0
        return loss


def flat(x):
    return torch.as_tensor(x).detach().flatten().tolist()


def case(optimizer, origin, config, problem, run):
    """`run(step, loss)` takes a step, and returns scalars of the group."""
    steps = []
    for step in range(1, STEPS + 1):
        loss = problem.evaluate(step)
        grads = {n: flat(p.grad) for n, p in problem.params.items()}
        group = run(loss)
        expect = {n: flat(p) for n, p in problem.params.items()}
        steps.append({"loss": loss.item(), "grads": grads, "expect": expect, "group": group})
    params = [{"name": n, "shape": list(s), "init": flat(problem.init[n])} for n, s in SHAPES.items()]
    out = {"optimizer": optimizer, "origin": origin, "dtype": "f64", "config": config, "params": params}
    return out | {"steps": steps, "notes": "`loss` goes with the gradients of its step"}


def state(opt, problem, slots):
    one = lambda p: {name: {"shape": list(p.shape), "data": flat(opt.state[p][name])} for name in slots}
    dots = lambda p: {"grad_dot_w": float(opt.state[p]["grad_dot_w"])}
    return {n: one(p) | dots(p) for n, p in problem.params.items()}


def sps(Sps, arguments, problem, fstar=0.0):
    opt = Sps(list(problem.params.values()), **arguments)
    opt.fstar_flag = fstar != 0.0
    batch = {"meta": {"fstar": torch.tensor([fstar])}}

    def run(loss):
        before = opt.state["step_size"]
        opt.step(loss=loss, batch=batch)
        # a step of gradient zero would set the bound of all later steps to zero
        opt.state["step_size"] = opt.state["step_size"] or before
        return {"step_size": float(opt.state["step_size"])}

    smooth = arguments["adapt_flag"] == "smooth_iter"
    given = {"c": opt.c, "eps": opt.eps, "eta_max": opt.eta_max or 1e300, "fstar": fstar}
    given |= {"init_step_size": opt.init_step_size}
    given |= {"gamma_per_step": opt.gamma ** (1.0 / opt.n_batches_per_epoch)} if smooth else {}
    return case("Sps", "github.com/IssamLaradji/sps at 6d112a1, sps/sps.py", given, problem, run)


def by_momo(name, config, problem, slots):
    opt = getattr(momo, name)(list(problem.params.values()), **config)

    def run(loss):
        opt.step(loss=loss)
        return {"loss_avg": float(opt.loss_avg), "lower_bound": float(opt.lb)}

    out = case(name, "momo-opt 0.1.0", config, problem, run)
    return out | {"final_state": state(opt, problem, slots)}


def main():
    spec = importlib.util.spec_from_file_location("sps", sys.argv[1])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    target = pathlib.Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    # (floor, noise, size of the first parameters)
    fits, rough, far = (0.0, 0.0, 1.0), (0.7, 0.5, 1.0), (2.0, 0.3, 30.0)
    constant, smooth = {"adapt_flag": "constant"}, {"adapt_flag": "smooth_iter"}
    runs = [
        ("sps", dict(constant, eta_max=0.2), fits, 0.0),
        ("sps", dict(constant), rough, 0.7),
        ("sps", dict(constant, c=1.0, eta_max=100.0), far, 5.0),
        ("sps", dict(smooth, n_batches_per_epoch=3, init_step_size=1e-3), fits, 0.0),
        ("sps", dict(smooth, n_batches_per_epoch=1, init_step_size=1e-2, c=0.2, gamma=1.5), far, 0.0),
        ("momo", dict(), fits, None),
        ("momo", dict(lr=0.3, beta=0.5, weight_decay=0.1, lb=0.2), rough, None),
        ("momo", dict(bias_correction=True, weight_decay=0.05), far, None),
        ("momo", dict(use_fstar=True, lr=5.0), rough, None),
        ("momo", dict(use_fstar=True, bias_correction=True, lb=3.0, weight_decay=0.2), far, None),
        ("momoadam", dict(), fits, None),
        ("momoadam", dict(lr=2.0, lb=0.2, weight_decay=0.1), rough, None),
        ("momoadam", dict(lr=2.0, weight_decay=0.1, divide=False, betas=(0.8, 0.95)), rough, None),
        ("momoadam", dict(lr=50.0, use_fstar=True, eps=1e-3), far, None),
        ("momoadam", dict(lr=50.0, use_fstar=True, lb=-1.0, weight_decay=0.05), rough, None),
    ]
    counts = {}
    for seed, (name, arguments, problem, fstar) in enumerate(runs):
        problem = Problem(seed, *problem)
        if name == "sps":
            out = sps(module.Sps, arguments, problem, fstar)
        elif name == "momo":
            out = by_momo("Momo", arguments, problem, ["grad_avg"])
        else:
            out = by_momo("MomoAdam", arguments, problem, ["grad_avg", "grad_avg_sq"])
        number = counts[name] = counts.get(name, -1) + 1
        (target / f"{name}_{number:02d}_f64.json").write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
