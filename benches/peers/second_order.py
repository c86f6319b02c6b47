"""Times steps of Shampoo and SOAP and of Meta's Distributed Shampoo, in turns on one machine. See README.md."""

import argparse
import statistics
import time

import run

run.PEERS |= {
    "eigenstep-shampoo": ("shampoo_peer", "shampoo"),
    "eigenstep-shampoo-qr": ("shampoo_peer", "shampoo-qr"),
    "eigenstep-shampoo4": ("shampoo_peer", "shampoo4"),
    "eigenstep-soap": ("shampoo_peer", "soap"),
    "torch-shampoo": ("shampoo_peer.py", "shampoo"),
    "torch-shampoo-qr": ("shampoo_peer.py", "shampoo-qr"),
    "torch-soap": ("shampoo_peer.py", "soap"),
}
DEFAULT = "eigenstep-shampoo,eigenstep-shampoo-qr,eigenstep-shampoo4,torch-shampoo"
PERIOD = 10  # steps from one root to the next, the same for all peers


def measure(names, threads, args):
    """Name → one list of PERIOD seconds per turn. Every turn holds one step that makes roots."""
    peers = []
    try:
        for name in names:
            peers.append(run.Peer(name, args.case, threads))
            assert peers[-1].hear() == "ready"
        for peer in peers:
            peer.seconds_per_step(2 * PERIOD)
        turns = {name: [] for name in names}
        for turn in range(args.runs):
            for peer in run.shuffled(peers, turn):
                time.sleep(args.pause)
                turns[peer.name].append([peer.seconds_per_step(1) for _ in range(PERIOD)])
        return turns
    finally:
        for peer in peers:
            peer.quit()


def table(turns, baseline):
    lines = [
        f"| peer | mean step, ms | × {baseline} | worst step, ms | × {baseline} | step without roots, ms | × {baseline} |",
        "|---|---|---|---|---|---|---|",
    ]
    kinds = (statistics.fmean, max, statistics.median)
    for name, own in turns.items():
        cells = []
        for kind in kinds:
            seconds = [kind(turn) for turn in own]
            ratios = [kind(turn) / kind(other) for turn, other in zip(own, turns[baseline])]
            low, middle, high = statistics.quantiles(ratios, n=4)
            cells.append(f"{1e3 * statistics.median(seconds):.4g} | {middle:.3g} ({low:.3g} – {high:.3g})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    listed = lambda text: text.split(",")
    parser.add_argument("--peers", type=listed, default=DEFAULT, help=f"of {', '.join(run.PEERS)}")
    parser.add_argument("--case", default="mlp", help="of cases.txt")
    parser.add_argument("--threads", type=listed, default="1,2")
    parser.add_argument("--baseline", help="peer the others are divided by; the first one unless given")
    parser.add_argument("--runs", type=int, default=7, help=f"turns of each peer, {PERIOD} steps each")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two turns")
    args = parser.parse_args()
    args.baseline = args.baseline or args.peers[0]
    for name in [*args.peers, args.baseline]:
        if name not in run.PEERS:
            parser.error(f"no peer {name}")
    if args.baseline not in args.peers:
        parser.error(f"the baseline {args.baseline} is not among the peers")
    if args.runs < 2:
        parser.error("a median needs two runs or more")
    return args


def main():
    args = arguments()
    run.build(args.peers)
    print(run.machine(args.peers), flush=True)
    for threads in map(int, args.threads):
        turns = measure(args.peers, threads, args)
        print(f"\n**{args.case}, {threads} thread{'s' * (threads > 1)}**\n\n{table(turns, args.baseline)}", flush=True)


if __name__ == "__main__":
    main()
