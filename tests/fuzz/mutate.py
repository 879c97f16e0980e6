#!/usr/bin/env python3
"""Runs mutated and truncated files through the binary and checks that every exit code is one of 0 to 6.

  tests/fuzz/mutate.py --count 10000 [--systole target/release/systole] [--seed 0] [--jobs N] [--keep DIR] [--kind K,..] [SEED FILE ...]

Each file runs with `--time-limit 1s --mem-limit 1GiB` through a verb that reads such files. The kinds (`--kind`):

  model     ONNX and .tir graphs, through every verb that takes a model, on every target and level
  kernel    kernels and modules in text, through `opt` and `profile`
  data      .npz, .npy and .pb as inputs and expectations of a small model
  saved     programs that `compile -o` wrote
  asm       programs of a modeled core in text
  machine   descriptions of cores (.toml), as targets
  system    descriptions of systems (.toml) and measurements (.csv)
  topology  layers in .csv
  plan      config.json of language models
  flags     flags with wild values, over files that are right

Seed files given by name take the kind of their name's end; without any, the repository's own are taken. A run that ends
otherwise (70, a signal, or far over its time) is kept and named. Needs nothing but Python; exit status 0 when all is well.
"""
import argparse, collections, concurrent.futures, json, os, random, re, struct, subprocess, sys, tempfile, time, zipfile, io
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMITS = ["--time-limit", "1s", "--mem-limit", "1GiB"]
# A machine that does other work may be late; a process that hangs is far later than this.
PATIENCE_SECONDS = 30
BIGGEST_SEED_BYTES = 4 << 20
KINDS = ["model", "kernel", "data", "saved", "asm", "machine", "system", "topology", "plan", "flags"]
DIGITS = ROOT / "examples/digits"

CONFIG = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192, "rope_theta": 500000.0,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}
TOPOLOGY = """Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,
Conv1, 224, 224, 7, 7, 3, 64, 2,
Conv2, 56, 56, 3, 3, 64, 64, 1,
FC, 1, 1, 1, 1, 2048, 1000, 1,
"""


def level_of(text):
    code = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("//")]
    return "kernel" if code and re.match(r"(kernel|module)\b", code[0]) else "model"


def kind_of(path, data):
    suffix = path.suffix
    if suffix == ".tir":
        return level_of(data.decode(errors="replace"))
    if suffix == ".toml":
        return "machine" if "machines" in path.parts else "system"
    if suffix == ".csv":
        return "topology" if b"IFMAP" in data or b"Filter" in data else "system"
    return {".onnx": "model", ".npz": "data", ".npy": "data", ".pb": "data", ".systole": "saved", ".asm": "asm", ".json": "plan"}.get(suffix)


def tensor_proto(shape, values):
    """A TensorProto of f32 in raw bytes."""
    raw = struct.pack(f"<{len(values)}f", *values)
    head = b"".join(bytes([0x08, size]) for size in shape) + b"\x10\x01" + b"\x42\x01x"
    return head + b"\x4a" + bytes([len(raw) & 0x7F | 0x80, len(raw) >> 7]) + raw


def made(binary, folder):
    """Seeds that the repository does not hold: what the binary writes, and small files of other tools."""
    folder = Path(folder)
    run = lambda *words: subprocess.run([binary, *map(str, words)], cwd=folder, capture_output=True)
    run("compile", DIGITS / "model.onnx", "--dim", "batch=1", "-o", "digits.systole")
    mlp = ROOT / "examples/graphs/mlp.tir"
    run("compile", mlp, "-o", "mlp.systole")
    run("compile", mlp, "--target", "trn2", "--emit", "asm", "-o", "mlp.asm")
    run("compile", mlp, "--emit", "kernels", "-o", "kernels.tir")
    run("compile", mlp, "--emit", "module", "-o", "module.tir")
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1))
    (folder / "layers.csv").write_text(TOPOLOGY)
    (folder / "x.pb").write_bytes(tensor_proto([4, 8], [0.5 * i for i in range(32)]))
    with zipfile.ZipFile(DIGITS / "images.npz") as bundle:
        for name in bundle.namelist():
            (folder / name).write_bytes(bundle.read(name))
    with zipfile.ZipFile(folder / "deflated.npz", "w", zipfile.ZIP_DEFLATED) as bundle, zipfile.ZipFile(DIGITS / "images.npz") as original:
        for name in original.namelist():
            bundle.writestr(name, original.read(name))
    return sorted(path for path in folder.iterdir() if path.is_file())


def seeds(paths, binary, folder):
    """The files to start from, by kind. Large ones are left out: most of their bytes are weights."""
    if not paths:
        places = [("tests", ("onnx", "tir")), ("examples", ("onnx", "tir", "npz")), ("targets", ("toml", "csv"))]
        paths = [path for place, ends in places for end in ends for path in sorted((ROOT / place).rglob(f"*.{end}"))]
        paths += made(binary, folder)
    found = collections.defaultdict(list)
    for path in map(Path, paths):
        if not 0 < path.stat().st_size <= BIGGEST_SEED_BYTES:
            continue
        data = path.read_bytes()
        kind = kind_of(path, data)
        if kind:
            found[kind].append((path, data))
    return found


NUMBERS = ["0", "1", "-1", "2", "3", "7", "0.5", "-0.0", "1e308", "1e-320", "nan", "inf", "-inf", "99999999999", "9223372036854775807",
           "-9223372036854775808", "18446744073709551616", "4294967296", "65536", "1000000", "1e9", "true", "\"x\"", "[]", "{}", ""]


def mutate_text(data, others, rng):
    """Numbers, words and lines become others: what is left is often still readable."""
    text = data.decode(errors="replace")
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        kind = rng.randrange(6)
        lines = text.split("\n")
        if kind <= 2:
            spots = list(re.finditer(r"-?\d[\d_.]*(?:e-?\d+)?", text))
            if spots:
                spot = rng.choice(spots)
                text = text[:spot.start()] + rng.choice(NUMBERS) + text[spot.end():]
        elif kind == 3:
            spots, words = list(re.finditer(r"[\w%@-]+", text)), re.findall(r"[\w%@-]+", rng.choice(others)[1].decode(errors="replace"))
            if spots and words:
                spot = rng.choice(spots)
                text = text[:spot.start()] + rng.choice(words) + text[spot.end():]
        elif kind == 4:
            at = rng.randrange(len(lines))
            text = "\n".join(lines[:at] + rng.choice(([], [lines[at]] * 2, [lines[at]] * 200)) + lines[at + 1:])
        elif len(lines) > 1:
            a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines[a], lines[b] = lines[b], lines[a]
            text = "\n".join(lines)
    return text.encode()


def mutate_bytes(data, others, rng):
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


def mutate_bundle(data, others, rng):
    """The arrays in an archive are changed, and the archive is whole."""
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as bundle:
            arrays = [(name, bundle.read(name)) for name in bundle.namelist()]
    except Exception:
        return mutate_bytes(data, others, rng)
    with zipfile.ZipFile(out, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as bundle:
        for name, array in arrays:
            kind = rng.randrange(8)
            if kind == 0:
                name = rng.choice(("x.npy", "../x.npy", "/etc/x.npy", "", "images", name + ".npy", "é.npy"))
            elif kind == 1:
                array = array.replace(b"'<f4'", rng.choice((b"'>f4'", b"'|O'  "[:5], b"'<f8'", b"'<c8'", b"'<U1'", b"'<M8'", b"'|V4'", b"'=f4'")))
            elif kind == 2:
                array = re.sub(rb"\(\d+,", rng.choice((b"(9,", b"(-1,", b"(0,", b"(99999999999999999999,", b"(4611686018427387904,")), array, count=1)
            elif kind == 3:
                array = array.replace(b"False", rng.choice((b"True ", b"None ", b"0    ")))
            elif kind == 4:
                array = mutate_bytes(array[:128], others, rng) + array[128:]
            elif kind == 5:
                array = array[:rng.randrange(len(array))]
            elif kind == 6:
                continue
            bundle.writestr(name or "_", array)
    return out.getvalue()


def mutate(kind, data, others, rng):
    if kind == "flags":
        return data
    if kind == "data" and data[:2] == b"PK" and rng.random() < 0.6:
        return mutate_bundle(data, others, rng)
    if kind not in ("data", "saved") and b"\0" not in data[:4096] and rng.random() < 0.6:
        return mutate_text(data, others, rng)
    return mutate_bytes(data, others, rng)


SOME_INPUTS = ["--input", "*=random:0"]
LEVELS = ["graph", "kernels", "module", "asm", "clif"]
GRAPH_PASSES = ["inline-calls", "simplify", "expand", "fold-constants", "merge-duplicates", "drop-dead", "fuse", "shard"]
SYSTEMS = ["dgx-h100", "trn2-ultra64", "trn3-gen2-144", "gb200-nvl72*4", "tpu-v5e"]


def of_model(name, rng):
    target = rng.choice((["--target", "reference"], ["--target", "kernels"], ["--threads", "1"], ["--threads", "2"], ["--target", "trn2"]))
    passes = ",".join(rng.choices(GRAPH_PASSES, k=rng.randrange(1, 5)))
    return rng.choice([
        ["run", name, *target, *SOME_INPUTS],
        ["run", name, *target, *SOME_INPUTS],
        ["run", name, "--input", "*=zeros", "--json", "--verify", "--explain"],
        ["run", name, *SOME_INPUTS, "--mesh", rng.choice(("dp=2", "tp=2", "dp=2,tp=2", "pp=2"))],
        ["compile", name, "--emit", rng.choice(LEVELS)],
        ["compile", name, "--emit", rng.choice(LEVELS), "--target", rng.choice(("trn2", "trn1", "kernels", "reference"))],
        ["compile", name, "-o", "out.systole"],
        ["compile", name, "--emit", "module", "--print-changed", "--bisect-limit", str(rng.randrange(12))],
        ["check", name, "--json"],
        ["check", name, "--target", "trn2"],
        ["profile", name, "--json"],
        ["profile", name, "--trace", "t.json", "--report", "r.html", "--precision", rng.choice(("bf16", "f8", "bf16-all", "f8-all"))],
        ["bench", name, "--runs", "1", *SOME_INPUTS],
        ["opt", name, "--passes", passes],
        ["diff", name, *rng.choice(([], ["reference", "kernels"], ["kernels", "trn2"])), *SOME_INPUTS],
        ["inspect", name],
    ])


def of_kernel(name, rng):
    return rng.choice([
        ["opt", name],
        ["opt", name, "--passes", "tile,place"],
        ["opt", name, "--passes", rng.choice(("load-once,layout,plan-buffers", "tile{near=1024}", "place,tile", "plan-buffers"))],
        ["profile", name],
        ["profile", name, "--trace", "t.json", "--json"],
        ["profile", name, "--target", rng.choice(("trn1", "trn3", "trn4"))],
        ["inspect", name],
        ["run", name, *SOME_INPUTS],
    ])


def of_data(name, rng):
    digits = str(DIGITS / "model.onnx")
    if name.endswith(".npz"):
        return rng.choice([
            ["inspect", name],
            ["run", digits, "--inputs", name],
            ["run", digits, "--inputs", str(DIGITS / "images.npz"), "--expect", name, "--json"],
            ["run", digits, "--input", f"image=@{name}:image"],
            ["bench", digits, "--inputs", name, "--runs", "1"],
        ])
    return rng.choice([["inspect", name], ["run", digits, "--input", f"image=@{name}"], ["run", digits, "--input", f"*=@{name}"]])


def of_saved(name, rng):
    return rng.choice([["run", name, *SOME_INPUTS], ["inspect", name], ["check", name], ["bench", name, "--runs", "1", *SOME_INPUTS], ["profile", name]])


def of_asm(name, rng):
    return rng.choice([["profile", name], ["profile", name, "--json"], ["profile", name, "--trace", "t.json"], ["profile", name, "--target", "trn1"], ["inspect", name]])


def of_machine(name, rng):
    mlp = str(ROOT / "examples/graphs/mlp.tir")
    return rng.choice([
        ["run", mlp, "--target", name, *SOME_INPUTS],
        ["profile", mlp, "--target", name, "--json"],
        ["check", mlp, "--target", name],
        ["profile", str(ROOT / "tests/kernels/dense.tir"), "--target", name],
        ["inspect", name],
    ])


def of_system(name, rng):
    if name.endswith(".csv"):
        return ["collective", "--system", rng.choice(SYSTEMS), "--measured", name]
    kind = rng.choice(("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "broadcast", "permute", "point-to-point"))
    return rng.choice([
        ["collective", kind, "--system", name, "--bytes", rng.choice(("1", "64KiB", "1GiB", "1TiB"))],
        ["collective", kind, "--system", name, "--bytes", "1MiB", "--simulate", "--json"],
        ["collective", kind, "--system", name + "*4", "--bytes", "1MiB"],
        ["plan", "{config}", "--system", name],
        ["plan", "{config}", "--system", name, "--workload", "decode", "--json"],
    ])


def of_topology(name, rng):
    array = str(ROOT / "targets/systolic/machines/array-128x128.toml")
    return rng.choice([["profile", name, "--target", array], ["profile", name, "--target", array, "--json"], ["profile", name]])


def of_plan(name, rng):
    return ["plan", name, "--system", rng.choice(SYSTEMS), "--workload", rng.choice(("train", "prefill", "decode")), *rng.choice(([], ["--json"], ["--mesh", "tp=8"], ["--power-mw", "5"]))]


WILD = NUMBERS + ["=", "x", "x=", "=1", "x=1,y=2", "*", "@", "@x", "@/", "@..", "{", "}", "{_", "🦀", "\u0000"[:0], "a" * 5000, "batch=0", "batch=99999999999", "batch=-1",
               "dp=0", "dp=1000000", "dp=2,dp=2", "2x2xf32=1 2 3", "2x2xf32=1 2 3 4", "99999999999x99999999999xf32=1", "x=zeros", "image=zeros", "image=random:", "image=random:1:5..2", "image=1xf32=",
               "*=random:99999999999999999999", "fuse{", "tile{m=0}", "tile{m=99999999999999999999}", "simplify,,", "hbm.stack_gbs=0", "hbm.stack_gbs=-1", "hbm.stack_gbs=nan", "pe.rows=0"]
FLAGS = {
    "run": ["--target", "--dim", "--input", "--inputs", "--expect", "--tol", "--threads", "--mesh", "--shard", "--system", "--set", "--precision", "--mode", "--cpu", "--print-after", "--bisect-limit", "--outputs"],
    "bench": ["--dim", "--input", "--runs", "--seconds", "--threads", "--cpu"],
    "compile": ["--emit", "--dim", "--stop-after", "--print-after", "--target", "--cpu", "--set"],
    "opt": ["--passes", "--stop-after", "--dim", "--cpu"],
    "profile": ["--target", "--dim", "--scalar", "--set", "--precision"],
    "check": ["--target", "--dim", "--set"],
    "collective": ["--system", "--ranks", "--bytes", "--dtype", "--algorithm", "--protocol", "--chunks", "--set"],
    "plan": ["--system", "--batch", "--seq", "--tokens", "--mesh", "--train-tokens", "--power-mw", "--checkpoint-s", "--set", "--precision"],
    "explain": [], "list": [], "diff": ["--dim", "--input", "--tol"],
}


def of_flags(name, rng):
    verb = rng.choice(sorted(FLAGS))
    line = [verb]
    if verb == "plan":
        line.append("{config}")
    elif verb == "collective":
        line += ["all-reduce", "--bytes", "1MiB", "--system", "dgx-h100"]
    elif verb in ("explain", "list"):
        line.append(rng.choice(WILD))
    else:
        line.append(name)
    if verb == "plan":
        line += ["--system", "dgx-h100"]
    for _ in range(rng.choice((1, 1, 2, 3))):
        if FLAGS[verb]:
            line += [rng.choice(FLAGS[verb]), rng.choice(WILD + SYSTEMS + ["trn2", "kernels", "f8", "both"])]
    return line


COMMANDS = {"model": of_model, "kernel": of_kernel, "data": of_data, "saved": of_saved, "asm": of_asm, "machine": of_machine, "system": of_system,
            "topology": of_topology, "plan": of_plan, "flags": of_flags}
NO_LIMITS = ("list", "explain")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--systole", default=str(ROOT / "target/release/systole"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--keep", default="fuzz-failures")
    parser.add_argument("--kind", default=",".join(KINDS))
    parser.add_argument("files", nargs="*")
    args = parser.parse_args()
    binary = os.path.abspath(args.systole)
    work = tempfile.TemporaryDirectory()
    originals = seeds(args.files, binary, work.name)
    if not args.files:
        originals["flags"] = [seed for seed in originals["model"] if "examples" in str(seed[0])]
    wanted = [kind for kind in args.kind.split(",") if originals.get(kind)]
    if not wanted:
        sys.exit("no seed files")
    # Half of the files are models: that is what most users give.
    weights = [len(wanted) if kind == "model" else 1 for kind in wanted]
    codes, by_kind = collections.Counter(), collections.defaultdict(collections.Counter)
    slowest = (0.0, "")
    config = Path(work.name) / "a-config.json"
    config.write_text(json.dumps(CONFIG))

    def one(index):
        rng = random.Random(args.seed * 1_000_003 + index)
        kind = rng.choices(wanted, weights)[0]
        original, data = rng.choice(originals[kind])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{index}{original.suffix}"
            path.write_bytes(mutate(kind, data, originals[kind], rng))
            words = [str(config) if word == "{config}" else word for word in COMMANDS[kind](str(path), rng)]
            line = [binary, *words, *([] if words[0] in NO_LIMITS else LIMITS)]
            start = time.time()
            try:
                ended = subprocess.run(line, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=PATIENCE_SECONDS)
                code, said = ended.returncode, ended.stderr.decode(errors="replace")
            except subprocess.TimeoutExpired:
                code, said = "hang", ""
            seconds = time.time() - start
            if code in range(7):
                return kind, code, seconds, " ".join(words), None
            os.makedirs(args.keep, exist_ok=True)
            kept = Path(args.keep) / f"{args.seed}-{path.name}"
            kept.write_bytes(path.read_bytes())
            shown = " ".join(repr(word) if not re.fullmatch(r"[\w./=*:,-]+", word) else word for word in line).replace(str(path), str(kept))
            return kind, code, seconds, " ".join(words), f"{code}: {shown}\n    from {original}\n    {said.strip()[:400]}"

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        failures = []
        for done, (kind, code, seconds, words, failure) in enumerate(pool.map(one, range(args.count)), 1):
            codes[code] += 1
            by_kind[kind][code] += 1
            slowest = max(slowest, (seconds, words))
            if failure:
                failures.append(failure)
                print(failure, flush=True)
            if done % 1000 == 0:
                print(f"{done} of {args.count}", file=sys.stderr, flush=True)
    list_of = lambda counter: ", ".join(f"{code}: {count}" for code, count in sorted(counter.items(), key=str))
    for kind in wanted:
        print(f"{kind:9} {len(originals[kind]):4} seeds; exit codes {list_of(by_kind[kind])}")
    print(f"slowest {slowest[0]:.2f} s: {slowest[1][:160]}")
    print(f"{args.count} files; exit codes {list_of(codes)}; {len(failures)} failures")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
