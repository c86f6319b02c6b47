"""PyTorch, for run.py. Variants: fused, foreach, loop (AdamW); sgd-fused (SGD, momentum 0.9)."""

import pathlib
import sys
import time

import torch


def shapes_of(case):
    shapes = []
    for line in (pathlib.Path(__file__).parent / "cases.txt").read_text().splitlines():
        name, repeated, *block = line.split()
        if name == case:
            shapes += int(repeated) * [tuple(map(int, word.split("x"))) for word in block]
    return shapes


def numbers(shape, size):
    """Of either sign, between 10 % and 100 % of size: squares and averages stay far from denormals."""
    sign = torch.randint(0, 2, shape, dtype=torch.float32) * 2 - 1
    return sign * torch.empty(shape).uniform_(0.1 * size, size)


def optimizer(params, variant):
    if variant == "sgd-fused":
        return torch.optim.SGD(params, lr=1e-3, momentum=0.9, fused=True)
    return torch.optim.AdamW(params, lr=1e-3, weight_decay=1e-2, fused=variant == "fused", foreach=variant == "foreach")


def main():
    case, threads, variant = sys.argv[1:]
    assert variant in ("fused", "foreach", "loop", "sgd-fused"), variant
    torch.set_num_threads(int(threads))
    torch.manual_seed(1)
    params = [torch.nn.Parameter(numbers(shape, 0.1)) for shape in shapes_of(case)]
    for p in params:
        p.grad = numbers(p.shape, 0.01)
    opt = optimizer(params, variant)

    print("ready", flush=True)
    for line in sys.stdin:
        word, *n = line.split()
        if word != "step":
            break
        start = time.perf_counter()
        for _ in range(int(n[0])):
            opt.step()
        print(f"{time.perf_counter() - start:.9f}", flush=True)


if __name__ == "__main__":
    main()
