#!/usr/bin/env python3
"""Writes `first_order/clips`: norms after ZClip, by its authors' code, and after AutoClip, by numpy's percentile.

usage: generate_clips.py ZCLIP_PY TARGET_FOLDER

ZCLIP_PY is zclip/zclip.py of github.com/bluorion-com/ZClip; torch and numpy are installed by pip. The same versions
give the same bytes.
"""
import importlib.util
import json
import pathlib
import sys

import numpy
import torch


def norms(seed, count, spike):
    """Norms that wander, with a spike at every seventh step and one zero."""
    draw = numpy.random.default_rng(seed)
    found = numpy.exp(0.3 * draw.standard_normal(count)) + 0.01 * numpy.arange(count)
    found[6::7] *= spike
    found[11] = 0.0
    return [float(x) for x in found]


def clipped(step, given):
    """Norms of a gradient of one number after `step` has seen it."""
    after = []
    for norm in given:
        model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
        model.weight.grad = torch.full((1, 1), norm, dtype=torch.float64)
        step(model)
        after.append(float(model.weight.grad))
    return after


def auto_clip(percentile):
    history = []

    def step(model):
        history.append(float(model.weight.grad.norm()))
        torch.nn.utils.clip_grad_norm_(model.parameters(), numpy.percentile(history, percentile))

    return step


def cases(zclip):
    for seed, options in enumerate([
        {},
        {"max_grad_norm": None},
        {"max_grad_norm": None, "clip_option": "mean", "z_thresh": 1.5},
        {"max_grad_norm": None, "mode": "percentile", "alpha": 0.9, "warmup_steps": 5},
        {"max_grad_norm": 3.0, "clip_factor": 0.7, "warmup_steps": 10, "skip_update_on_spike": True},
    ]):
        given = norms(seed, 60, 9.0)
        yield {"rule": "zclip", **options}, given, clipped(zclip.ZClip(**options).step, given)
    for seed, percentile in enumerate([10.0, 37.5, 90.0]):
        given = norms(20 + seed, 40, 5.0)
        yield {"rule": "autoclip", "percentile": percentile}, given, clipped(auto_clip(percentile), given)


def main():
    spec = importlib.util.spec_from_file_location("zclip", sys.argv[1])
    zclip = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(zclip)
    found = [{"config": config, "input": {"norms": given}, "expect": {"norms": after}}
             for config, given, after in cases(zclip)]
    versions = f"torch {torch.__version__}, numpy {numpy.__version__}"
    case = {"kernel": "history_clip", "origin": f"bluorion-com/ZClip; numpy.percentile; {versions}", "cases": found}
    target = pathlib.Path(sys.argv[2])
    (target / "kernel_history_clip.json").write_text(json.dumps(case))


main()
