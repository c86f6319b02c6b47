"""Distributed Shampoo of facebookresearch/optimizers, for second_order.py. Variants: shampoo, shampoo-qr, soap."""

import sys
import time

import torch

from torch_peer import numbers, shapes_of

try:
    from distributed_shampoo import (
        AdamPreconditionerConfig,
        DefaultSOAPConfig,
        DistributedShampoo,
        EigendecomposedShampooPreconditionerConfig,
        QREigendecompositionConfig,
        RootInvShampooPreconditionerConfig,
    )
except ImportError as error:
    sys.exit(
        f"{error}: get https://github.com/facebookresearch/optimizers, put its folder on PYTHONPATH,"
        " and install numpy beside torch"
    )
from dataclasses import replace

GRADIENTS = 8  # sets of gradients, used in turn: statistics are not those of one matrix


def optimizer(params, variant):
    # Vectors have no factors, as in eigenstep: by default they have one of full order here.
    grafting = AdamPreconditionerConfig(beta2=0.999, epsilon=1e-8)
    if variant == "shampoo":
        config = RootInvShampooPreconditionerConfig(inverse_exponent_override={1: 0.0})
    elif variant == "shampoo-qr":
        config = EigendecomposedShampooPreconditionerConfig(
            amortized_computation_config=QREigendecompositionConfig(), inverse_exponent_override={1: 0.0}
        )
    else:
        config = replace(DefaultSOAPConfig, ignored_basis_change_dims={1: [0]})
        grafting = None
    return DistributedShampoo(
        params,
        lr=1e-3,
        betas=(0.9, 0.999),
        epsilon=1e-8,
        weight_decay=1e-2,
        max_preconditioner_dim=1024,
        precondition_frequency=10,
        start_preconditioning_step=10,
        grafting_config=grafting,
        preconditioner_config=config,
    )


case, threads, variant = sys.argv[1:]
assert variant in ("shampoo", "shampoo-qr", "soap"), variant
torch.set_num_threads(int(threads))
torch.manual_seed(1)
params = [torch.nn.Parameter(numbers(shape, 0.1)) for shape in shapes_of(case)]
gradients = [[numbers(p.shape, 0.01) for p in params] for _ in range(GRADIENTS)]
opt = optimizer(params, variant)

print("ready", flush=True)
done = 0
for line in sys.stdin:
    word, *n = line.split()
    if word != "step":
        break
    elapsed = 0.0
    for _ in range(int(n[0])):
        for p, g in zip(params, gradients[done % GRADIENTS]):
            p.grad = g
        done += 1
        start = time.perf_counter()
        opt.step()
        elapsed += time.perf_counter() - start
    print(f"{elapsed:.9f}", flush=True)
