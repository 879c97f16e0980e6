#!/usr/bin/env python3
"""Runs mutated and truncated files through the binary and checks that every exit code is one of 0 to 6.

  tests/fuzz/mutate.py --count 10000 [--systole target/release/systole] [--seed 0] [--jobs N] [--keep DIR] [SEED FILE ...]

Seed files are ONNX models, .tir texts, .npy, .npz and .pb; without any, the repository's own are taken. Each file runs with
`--time-limit 1s --mem-limit 1GiB`. A file that ends otherwise (70, a signal, or far over its time) is kept and named. Needs
nothing but Python; exit status 0 when all is well.
"""
import argparse, collections, concurrent.futures, os, random, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMITS = ["--time-limit", "1s", "--mem-limit", "1GiB"]
# A machine that does other work may be late; a process that hangs is far later than this.
PATIENCE_SECONDS = 30
BIGGEST_SEED_BYTES = 4 << 20


def seeds(paths):
    """The files to start from. Large ones are left out: most of their bytes are weights."""
    if not paths:
        folders = ["tests", "examples"]
        paths = [p for f in folders for e in ("onnx", "tir", "npz") for p in sorted((ROOT / f).rglob(f"*.{e}"))]
    files = [Path(p) for p in paths]
    return [(f, f.read_bytes()) for f in files if 0 < f.stat().st_size <= BIGGEST_SEED_BYTES]


def mutate(data, others, rng):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8, 32))):
        if not data:
            break
        at = rng.randrange(len(data))
        end = min(len(data), at + 1 + rng.randrange(rng.choice((4, 16, 64, 1024))))
        kind = rng.randrange(9)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data[at:end] = bytes([rng.choice((0, 255, 127, 57))]) * (end - at)
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            del data[at:end]
        elif kind == 5:
            data[at:at] = data[at:end]
        elif kind == 6:
            data[at:at] = data[at:end] * rng.randrange(1, 50)
        elif kind == 7:
            other = rng.choice(others)[1]
            start = rng.randrange(len(other))
            data[at:end] = other[start:start + end - at]
        else:
            # A number becomes another, in text or as a varint.
            data[at:at + 1] = rng.choice((b"0", b"-1", b"99999999999", b"18446744073709551616", b"\xff\xff\xff\xff\x0f", b"\x80\x80\x80\x80\x10"))
    return bytes(data)


def command(binary, path, rng):
    name, suffix = str(path), path.suffix
    if suffix in (".npz", ".npy", ".pb"):
        return [binary, "inspect", name, *LIMITS]
    some_inputs = ["--input", "*=random:0"]
    return rng.choice([
        [binary, "run", name, "--target", "reference", *some_inputs, *LIMITS],
        [binary, "run", name, "--target", "kernels", *some_inputs, *LIMITS],
        [binary, "run", name, "--target", "host", "--threads", "1", *some_inputs, *LIMITS],
        [binary, "compile", name, "--emit", "module", *LIMITS],
        [binary, "check", name, *LIMITS],
        [binary, "opt", name, "--passes", "simplify,expand,fuse", *LIMITS],
        [binary, "inspect", name, *LIMITS],
    ])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--systole", default=str(ROOT / "target/release/systole"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--keep", default="fuzz-failures")
    parser.add_argument("files", nargs="*")
    args = parser.parse_args()
    originals = seeds(args.files)
    if not originals:
        sys.exit("no seed files")
    binary = os.path.abspath(args.systole)
    codes = collections.Counter()
    slowest = 0.0

    def one(index):
        rng = random.Random(args.seed * 1_000_003 + index)
        original, data = rng.choice(originals)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{index}{original.suffix}"
            path.write_bytes(mutate(data, originals, rng))
            line = command(binary, path, rng)
            start = time.time()
            try:
                ended = subprocess.run(line, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=PATIENCE_SECONDS)
                code, words = ended.returncode, ended.stderr.decode(errors="replace")
            except subprocess.TimeoutExpired:
                code, words = "hang", ""
            if code in range(7):
                return code, time.time() - start, None
            os.makedirs(args.keep, exist_ok=True)
            kept = Path(args.keep) / f"{args.seed}-{path.name}"
            kept.write_bytes(path.read_bytes())
            shown = " ".join(line).replace(str(path), str(kept))
            return code, time.time() - start, f"{code}: {shown}\n    from {original}\n    {words.strip()[:400]}"

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        failures = []
        for done, (code, seconds, failure) in enumerate(pool.map(one, range(args.count)), 1):
            codes[code] += 1
            slowest = max(slowest, seconds)
            if failure:
                failures.append(failure)
                print(failure, flush=True)
            if done % 1000 == 0:
                print(f"{done} of {args.count}", file=sys.stderr, flush=True)
    counts = ", ".join(f"{code}: {count}" for code, count in sorted(codes.items(), key=str))
    print(f"{args.count} files from {len(originals)} seeds; exit codes {counts}; slowest {slowest:.2f} s; {len(failures)} failures")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
