#!/usr/bin/env python3
"""Times `systole bench` and ONNX Runtime on the same models, by turns, and prints the ratios of the medians.

    race.py [--systole target/release/systole] [--rounds 5] [--seconds 2] [--threads 1] DIR...

Each DIR holds folders with model.onnx and inputs.npz (`shared/models`, or what `bench/make_models.py` wrote). Needs numpy
and onnxruntime. Turns are interleaved, so that a noisy moment of the machine hurts both; a ratio above 1 means that
ONNX Runtime is faster. Its graph optimizations are all on.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import time

import numpy as np
import onnxruntime


def systole(options, model):
    """Median latency and compile time in ms."""
    command = [options.systole, "bench", model / "model.onnx", "--inputs", model / "inputs.npz", "--json"]
    command += ["--threads", str(options.threads), "--seconds", str(options.seconds)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if result.returncode:
        raise RuntimeError(f"exit code {result.returncode}: {result.stderr.strip().splitlines()[-1:]}")
    figures = json.loads(result.stdout)
    return figures["latency_ms"]["median"], figures["compile_ms"]


class Peer:
    """ONNX Runtime, loaded once."""

    def __init__(self, options, model):
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        start = time.perf_counter()
        self.session = onnxruntime.InferenceSession(model / "model.onnx", settings, providers=["CPUExecutionProvider"])
        self.load_ms = (time.perf_counter() - start) * 1e3
        self.inputs = dict(np.load(model / "inputs.npz"))
        self.seconds = options.seconds
        self.session.run(None, self.inputs)

    def median_ms(self):
        times, end = [], time.perf_counter() + self.seconds
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            self.session.run(None, self.inputs)
            times.append((time.perf_counter() - start) * 1e3)
        return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--systole", default="target/release/systole")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    print(f"onnxruntime {onnxruntime.__version__}, {options.threads} thread(s), {options.rounds} rounds of {options.seconds:g} s each")
    print(f"{'model':20} {'systole ms':>11} {'ort ms':>9} {'ratio':>6} {'range':>12} {'compile ms':>11} {'ort load ms':>12}")
    ratios = []
    for folder in options.folders:
        for model in sorted(path.parent for path in folder.glob("*/model.onnx")):
            try:
                ratios.append(race(options, model))
            except (RuntimeError, subprocess.TimeoutExpired) as problem:
                print(f"{model.name:20} {problem}")
    if ratios:
        print(f"{'geometric mean':20} {'':11} {'':9} {statistics.geometric_mean(ratios):6.2f}   worst {max(ratios):.2f}")


def race(options, model):
    peer = Peer(options, model)
    ours, theirs, compile_ms = [], [], []
    for _ in range(options.rounds):
        latency, compiling = systole(options, model)
        ours.append(latency)
        compile_ms.append(compiling)
        theirs.append(peer.median_ms())
    each = [a / b for a, b in zip(ours, theirs)]
    ours, theirs = statistics.median(ours), statistics.median(theirs)
    spread = f"{min(each):.2f}-{max(each):.2f}"
    print(
        f"{model.name:20} {ours:11.2f} {theirs:9.2f} {ours / theirs:6.2f} {spread:>12} "
        f"{statistics.median(compile_ms):11.0f} {peer.load_ms:12.0f}",
        flush=True,
    )
    return ours / theirs


if __name__ == "__main__":
    main()
