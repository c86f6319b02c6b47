"""Times optimizer steps of several libraries in turns on one machine. See README.md."""

import argparse
import datetime
import importlib.metadata
import itertools
import os
import pathlib
import platform
import random
import re
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE / "target"))

# name → (program, variant)
PEERS = {
    "eigenstep": ("eigenstep_peer", "f32"),
    "eigenstep-nocheck": ("eigenstep_peer", "f32-nocheck"),
    "eigenstep-int8": ("eigenstep_peer", "int8"),
    "eigenstep-int4": ("eigenstep_peer", "int4"),
    "eigenstep-sgd": ("eigenstep_peer", "sgd"),
    "eigenstep-lion": ("eigenstep_peer", "lion"),
    "torch-fused": ("torch_peer.py", "fused"),
    "torch-foreach": ("torch_peer.py", "foreach"),
    "torch-loop": ("torch_peer.py", "loop"),
    "torch-sgd-fused": ("torch_peer.py", "sgd-fused"),
    "candle": ("candle_peer", "adamw"),
    "burn": ("burn_peer", "adamw"),
}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "CANDLE_NUM_THREADS")
DEFAULT = "eigenstep,eigenstep-nocheck,torch-fused,torch-foreach,torch-loop,candle,burn"


class Peer:
    """A child process that holds parameters, gradients and an optimizer, and takes steps when told to."""

    def __init__(self, name, case, threads):
        program, variant = PEERS[name]
        command = [sys.executable, HERE / program] if program.endswith(".py") else [TARGET / "release" / program]
        limits = {key: str(threads) for key in THREADS}
        self.name = name
        self.child = subprocess.Popen(
            [*command, case, str(threads), variant],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | limits,
        )

    def hear(self):
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with exit code {self.child.wait()}")
        return line.strip()

    def seconds_per_step(self, steps):
        self.child.stdin.write(f"step {steps}\n")
        self.child.stdin.flush()
        return float(self.hear()) / steps

    def quit(self):
        self.child.stdin.close()
        self.child.wait()


def shuffled(peers, turn):
    """Another order each turn: what one peer leaves behind must not always meet the same other."""
    return random.Random(turn).sample(peers, len(peers))


def measure(names, case, threads, args):
    """Seconds per step: name → one number per run. All peers live at once, one of them works at a time."""
    peers = []
    try:
        for name in names:
            peers.append(Peer(name, case, threads))
            assert peers[-1].hear() == "ready"
        batch = {}
        for peer in peers:
            peer.seconds_per_step(args.warmup)
            batch[peer.name] = max(1, min(1000, round(args.batch / peer.seconds_per_step(1))))
        times = {name: [] for name in names}
        for run in range(args.runs):
            for peer in shuffled(peers, run):
                time.sleep(args.pause)  # until the threads of the last one have gone to sleep
                times[peer.name].append(peer.seconds_per_step(batch[peer.name]))
        return times
    finally:
        for peer in peers:
            peer.quit()


def table(times, baseline):
    lines = [
        f"| peer | ms per step (median) | fastest – slowest | × {baseline} (median) | middle half |",
        "|---|---|---|---|---|",
    ]
    for name, own in times.items():
        ms = [1e3 * seconds for seconds in own]
        ratios = [seconds / other for seconds, other in zip(own, times[baseline])]
        low, middle, high = statistics.quantiles(ratios, n=4)
        lines.append(
            f"| {name} | {statistics.median(ms):.4g} | {min(ms):.4g} – {max(ms):.4g} | {middle:.3g} | {low:.3g} – {high:.3g} |"
        )
    return "\n".join(lines)


def output_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def text_of(path):
    return pathlib.Path(path).read_text() if pathlib.Path(path).exists() else ""


def machine(names):
    cpu = re.search(r"model name\s*: (.*)", text_of("/proc/cpuinfo"))
    memory = re.search(r"MemTotal:\s*(\d+)", text_of("/proc/meminfo"))
    lock = text_of(HERE / "rust" / "Cargo.lock")
    versions = [f"Python {platform.python_version()}", output_of("rustc", "--version")]
    if any(name.startswith("torch") for name in names):
        versions.append("torch " + importlib.metadata.version("torch"))
    for crate, peer in (("eigenstep", "eigenstep"), ("candle-nn", "candle"), ("burn", "burn")):
        found = re.search(rf'name = "{crate}"\nversion = "(.*)"', lock)
        if found and any(name.startswith(peer) for name in names):
            versions.append(f"{crate} {found[1]}")
    return "\n".join([
        f"- {datetime.date.today()}, load {os.getloadavg()[0]:.2f} at the start",
        f"- {cpu[1] if cpu else platform.processor()}, {os.cpu_count()} logical cores,"
        f" {int(memory[1]) / 2**20 if memory else 0:.0f} GiB, {platform.platform()}",
        f"- transparent huge pages: {text_of('/sys/kernel/mm/transparent_hugepage/enabled').strip() or 'unknown'}",
        f"- {', '.join(versions)}, RUSTFLAGS: {os.environ.get('RUSTFLAGS') or 'none'}",
    ])


def build(names):
    packages = sorted({PEERS[name][0] for name in names if not PEERS[name][0].endswith(".py")})
    if packages:
        command = ["cargo", "build", "--release", "--target-dir", TARGET]
        command += itertools.chain.from_iterable(("-p", package) for package in packages)
        subprocess.run(command, cwd=HERE / "rust", check=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    listed = lambda text: text.split(",")
    parser.add_argument("--peers", type=listed, default=DEFAULT, help=f"of {', '.join(PEERS)}")
    parser.add_argument("--cases", type=listed, default="one,mixed,small", help="of cases.txt")
    parser.add_argument("--threads", type=listed, default="1,2")
    parser.add_argument("--baseline", help="peer the others are divided by; the first one unless given")
    parser.add_argument("--runs", type=int, default=15, help="turns of each peer")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the first run")
    parser.add_argument("--batch", type=float, default=0.1, help="seconds a run should take")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two runs")
    args = parser.parse_args()
    args.baseline = args.baseline or args.peers[0]
    for name in [*args.peers, args.baseline]:
        if name not in PEERS:
            parser.error(f"no peer {name}")
    if args.baseline not in args.peers:
        parser.error(f"the baseline {args.baseline} is not among the peers")
    if args.runs < 2:
        parser.error("a median needs two runs or more")
    return args


def main():
    args = arguments()
    build(args.peers)
    print(machine(args.peers), flush=True)
    for case, threads in itertools.product(args.cases, map(int, args.threads)):
        times = measure(args.peers, case, threads, args)
        print(f"\n**{case}, {threads} thread{'s' * (threads > 1)}**\n\n{table(times, args.baseline)}", flush=True)


if __name__ == "__main__":
    main()
