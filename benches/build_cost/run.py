#!/usr/bin/env python3
"""Measures what one more optimizer costs to build. See README.md."""

import argparse
import datetime
import os
import pathlib
import platform
import re
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE / "target"))
PROGRAMS = {"one": 1, "twelve": 12}  # program → number of its optimizers
INSTALL = "cargo install cargo-llvm-lines --locked"


def cargo(*arguments, **options):
    command = ["cargo", *arguments, "--target-dir", TARGET]
    return subprocess.run(command, cwd=HERE, check=True, text=True, **options)


def llvm_lines(program, top):
    """Lines of LLVM before optimisation, and the functions that have most of them; None without the tool."""
    if subprocess.run(["cargo", "llvm-lines", "--version"], capture_output=True).returncode:
        return None, []
    printed = cargo("llvm-lines", "--release", "--bin", program, stdout=subprocess.PIPE).stdout
    total = re.search(r"^\s*(\d+).*\(TOTAL\)$", printed, re.MULTILINE)
    functions = printed[total.end():].strip("\n").splitlines()
    return int(total[1]), functions[:top]


def rebuild(program):
    """Seconds of processor time and of the clock when nothing but the program's own file has changed."""
    (HERE / "src" / "bin" / f"{program}.rs").touch()
    before, start = os.times(), time.monotonic()
    cargo("build", "--release", "--quiet", "--bin", program)
    after = os.times()
    return after.children_user - before.children_user, time.monotonic() - start


def table(rows):
    lines = ["| | one | twelve | each optimizer more |", "|---|---|---|---|"]
    more = PROGRAMS["twelve"] - PROGRAMS["one"]
    for name, (one, twelve), form in rows:
        if one is None:
            lines.append(f"| {name} | – | – | – |")
        else:
            lines.append(f"| {name} | {form(one)} | {form(twelve)} | {form((twelve - one) / more)} |")
    return "\n".join(lines)


def machine():
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, cwd=HERE).stdout.strip()
    return "\n".join([
        f"- {datetime.date.today()}, load {os.getloadavg()[0]:.2f} at the start",
        f"- {cpu[1] if cpu else platform.processor()}, {os.cpu_count()} logical cores",
        f"- {rustc}, RUSTFLAGS: {os.environ.get('RUSTFLAGS') or 'none'}",
    ])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="rebuilds of each program; the fastest counts")
    parser.add_argument("--top", type=int, default=15, help="functions to print")
    args = parser.parse_args()

    print(machine(), flush=True)
    cargo("build", "--release", "--bins")  # all they depend on
    lines, functions = zip(*(llvm_lines(program, args.top) for program in PROGRAMS))
    times = {program: [] for program in PROGRAMS}
    for _ in range(args.runs):
        for program in PROGRAMS:
            times[program].append(rebuild(program))
    user, clock = zip(*(map(min, zip(*times[program])) for program in PROGRAMS))
    sizes = [(TARGET / "release" / program).stat().st_size for program in PROGRAMS]

    count, seconds = (lambda x: f"{x:,.0f}".replace(",", " ")), (lambda x: f"{x:.2f} s")
    print()
    print(table([
        ("lines of LLVM", lines, count),
        (f"rebuild, processor time, least of {args.runs}", user, seconds),
        (f"rebuild, elapsed time, least of {args.runs}", clock, seconds),
        ("size of the program, bytes", sizes, count),
    ]))
    if lines[0] is None:
        print(f"\nLines of LLVM need cargo-llvm-lines: {INSTALL}")
    elif args.top:
        print("\nFunctions of `twelve` with most lines (lines, copies, name):\n")
        print("\n".join(functions[1]))


if __name__ == "__main__":
    main()
