//! The command line: every verb and flag, with its help. A verb has only the flags that it uses.

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Compiles tensor models and runs them: on the host CPU, or level by level for whoever wants to see.
#[derive(Debug, Parser)]
#[command(name = "systole", version, max_term_width = 110, after_help = AFTER_HELP)]
pub(super) struct Command {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

const AFTER_HELP: &str = "\
Models are ONNX files or graphs in Systole's own text (.tir); run, bench, check and inspect also take programs that
`compile -o` saved.

Exit codes: 0 ok, 1 the model is wrong, 2 usage, 3 unsupported, 4 does not fit, 5 comparison failed,
6 a limit was hit, 70 a bug of Systole (a file that reproduces it is written).";

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    Run(RunArgs),
    Bench(BenchArgs),
    Check(CheckArgs),
    Profile(ProfileArgs),
    Compile(CompileArgs),
    Opt(OptArgs),
    Diff(DiffArgs),
    Inspect(InspectArgs),
    Collective(CollectiveArgs),
    Plan(PlanArgs),
    Claims(ClaimsArgs),
    List(ListArgs),
    Explain(ExplainArgs),
}

/// Compile a model and execute it; print its outputs, or save and compare them
#[derive(Debug, Args)]
#[command(after_help = RUN_HELP)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    #[command(flatten)]
    pub(super) threads: ThreadArgs,
    /// What a modeled accelerator computes [default: both]
    #[arg(long, value_name = "MODE")]
    pub(super) mode: Option<ModeName>,
    #[command(flatten)]
    pub(super) inputs: InputArgs,
    #[command(flatten)]
    pub(super) outputs: OutputArgs,
    #[command(flatten)]
    pub(super) look: LookArgs,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

const RUN_HELP: &str = "\
Examples:
  systole run mlp.onnx --input x=@x.npy
  systole run mlp.onnx --dim batch=8 --input '*=random:0'
  systole run mlp.tir --input 'x=2x2xf32=1 2 3 4' --target reference
  systole run mlp.onnx --inputs in.npz --expect out.npz --tol 1e-3,1e-3";

/// Measure a model: warm-up, then medians; load and compile time; memory
#[derive(Debug, Args)]
#[command(after_help = BENCH_HELP)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    #[command(flatten)]
    pub(super) threads: ThreadArgs,
    /// How many runs are measured [default: as many as fit into --seconds, at least 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) runs: Option<u32>,
    /// For how long runs are measured [default: 2]
    #[arg(long, value_name = "S", value_parser = seconds, conflicts_with = "runs")]
    pub(super) seconds: Option<Duration>,
    #[command(flatten)]
    pub(super) inputs: InputArgs,
    #[command(flatten)]
    pub(super) outputs: OutputArgs,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

const BENCH_HELP: &str = "\
Examples:
  systole bench mlp.onnx --input '*=random:0' --threads 1
  systole bench mlp.onnx --inputs in.npz --runs 100 --json";

/// Say whether a target can run a model, before any of it runs: coverage by op, and all that is missing
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

/// Tell where the time of a model goes on a modeled accelerator, and what bounds it
#[derive(Debug, Args)]
#[command(after_help = PROFILE_HELP)]
pub(super) struct ProfileArgs {
    /// An ONNX model or a graph in .tir text; a kernel or module in .tir text, or a program in .asm text, timed as it is written; or a topology in .csv
    pub(super) model: PathBuf,
    /// What it is timed on: trn1, trn2, trn3, trn4 or a description file; `roofline` is the chip of --system by its peaks [default: the core of --system's chips, else trn2]
    #[arg(long, value_name = "NAME")]
    pub(super) target: Option<String>,
    /// Divide it among the ranks of a mesh, a modeled core each: `dp=2,tp=4`
    #[arg(long, value_name = "AXIS=N,..", value_parser = mesh)]
    pub(super) mesh: Option<systole::Mesh>,
    /// Say how an input, output or value is divided: `x={dp,_}`
    #[arg(long = "shard", value_name = "NAME={..}", value_parser = sharding)]
    pub(super) shardings: Vec<(String, String)>,
    /// What carries the exchanges of ranks, a name or a description file [default: a system of such cores]
    #[arg(long, value_name = "NAME", requires = "mesh")]
    pub(super) system: Option<String>,
    /// Bind a symbolic size, or an unnamed one as INPUT.AXIS
    #[arg(long = "dim", value_name = "NAME=N", value_parser = dim)]
    pub(super) dims: Vec<(String, usize)>,
    /// Give the number of a tensor that decides the time: a scalar, or how often a loop runs
    #[arg(long = "scalar", value_name = "NAME=N", value_parser = number)]
    pub(super) scalars: Vec<(String, i64)>,
    /// Write every instruction and transfer for Perfetto or chrome://tracing
    #[arg(long, value_name = "F.json")]
    pub(super) trace: Option<PathBuf>,
    /// Write the tables as a page
    #[arg(long, value_name = "F.html")]
    pub(super) report: Option<PathBuf>,
    #[command(flatten)]
    pub(super) modeled: ModeledArgs,
    #[command(flatten)]
    pub(super) inputs: InputArgs,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

const PROFILE_HELP: &str = "\
Inputs are only needed where their values decide shapes; sizes are bound by --dim.

Examples:
  systole profile mlp.onnx --dim batch=8 --precision bf16
  systole profile mlp.onnx --dim batch=8 --target trn1 --json
  systole profile mlp.onnx --dim batch=8 --mesh tp=4 --system trn2-ultra64 --trace trace.json
  systole profile mlp.onnx --dim batch=8 --mesh dp=2,tp=4 --system dgx-h100
  systole profile matmul.tir --trace trace.json
  systole profile mlp.onnx --dim batch=8 --set hbm.stack_gbs=1000";

/// How a modeled accelerator is set up.
#[derive(Debug, Args)]
#[command(next_help_heading = "Modeled accelerators")]
pub(super) struct ModeledArgs {
    /// Replace a value of the machine's description: table.key=value
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) settings: Vec<String>,
    /// Narrow f32: operands of products alone, or all tensors; on the host, weights to bf16 [default: f32]
    #[arg(long, value_name = "TYPE")]
    pub(super) precision: Option<PrecisionName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum PrecisionName {
    /// Nothing is narrowed
    F32,
    /// Operands of products in bf16
    Bf16,
    /// Operands of products in f8e4m3
    F8,
    /// All tensors in bf16
    Bf16All,
    /// All tensors in f8e4m3
    F8All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ModeName {
    /// Values alone
    Values,
    /// Time alone; outputs are zeros
    Time,
    /// Both
    Both,
}

/// Save a model as a program that is ready to run, or print what it becomes, at any level
#[derive(Debug, Args)]
#[command(after_help = COMPILE_HELP)]
#[command(group(ArgGroup::new("what").required(true).multiple(true).args(["emit", "output", "stop_after"])))]
pub(super) struct CompileArgs {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    #[command(flatten)]
    pub(super) threads: ThreadArgs,
    /// Which level is printed, instead of saving a program
    #[arg(long, value_name = "LEVEL")]
    pub(super) emit: Option<Emit>,
    /// The file that the program goes to; with --emit, the text, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Stop after this pass and print what it made
    #[arg(long, value_name = "PASS", conflicts_with = "emit")]
    pub(super) stop_after: Option<String>,
    #[command(flatten)]
    pub(super) inputs: InputArgs,
    #[command(flatten)]
    pub(super) look: LookArgs,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

const COMPILE_HELP: &str = "\
Inputs are only needed where their values decide shapes; sizes are bound by --dim. A saved program is for this machine's
CPU, or the one that --cpu names; run, bench, check and inspect take it in place of a model.

Examples:
  systole compile mlp.onnx --dim batch=8 -o mlp.systole
  systole compile mlp.onnx --dim batch=8 --emit kernels
  systole compile mlp.onnx --dim batch=8 --emit asm -o mlp.s";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Emit {
    /// The tensor graph after its passes
    Graph,
    /// The kernels, tiled and placed
    Kernels,
    /// The kernels with the buffers and steps around them
    Module,
    /// The machine's assembly text
    Asm,
    /// Cranelift's IR
    Clif,
}

/// Run passes over a program and print it
#[derive(Debug, Args)]
#[command(after_help = OPT_HELP)]
pub(super) struct OptArgs {
    /// A graph, kernel or module as text, or an ONNX model
    pub(super) file: PathBuf,
    /// The passes, in order, each with its options: `fuse,tile{m=128}` [default: none]
    #[arg(long, value_name = "LIST", default_value = "", hide_default_value = true)]
    pub(super) passes: String,
    /// Bind a symbolic size, or an unnamed one as INPUT.AXIS
    #[arg(long = "dim", value_name = "NAME=N", value_parser = dim)]
    pub(super) dims: Vec<(String, usize)>,
    /// The file that the text goes to, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Compile for the CPU with no more than these features
    #[arg(long, value_name = "NAME")]
    pub(super) cpu: Option<String>,
    /// Stop after this pass
    #[arg(long, value_name = "PASS")]
    pub(super) stop_after: Option<String>,
    #[command(flatten)]
    pub(super) look: LookArgs,
    #[command(flatten)]
    pub(super) limits: LimitArgs,
    #[command(flatten)]
    pub(super) talk: TalkArgs,
}

const OPT_HELP: &str = "\
Without passes the program is parsed, verified and printed in canonical form.

Examples:
  systole opt mlp.tir --passes simplify,fuse
  systole opt mlp.tir --passes simplify,fuse --print-changed";

/// Run a model on two targets and report the first op on which they differ
#[derive(Debug, Args)]
#[command(after_help = DIFF_HELP)]
pub(super) struct DiffArgs {
    /// An ONNX model or a graph in .tir text
    pub(super) model: PathBuf,
    /// One target
    #[arg(default_value = "reference")]
    pub(super) a: String,
    /// The other target
    #[arg(default_value = "host")]
    pub(super) b: String,
    /// Bind a symbolic size, or an unnamed one as INPUT.AXIS
    #[arg(long = "dim", value_name = "NAME=N", value_parser = dim)]
    pub(super) dims: Vec<(String, usize)>,
    #[command(flatten)]
    pub(super) inputs: InputArgs,
    /// How far values may differ: |a-e| <= ATOL + RTOL*|e|; integers and bools never may
    #[arg(long, value_name = "ATOL,RTOL", value_parser = tolerance)]
    pub(super) tol: Option<(f64, f64)>,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

const DIFF_HELP: &str = "\
Example:
  systole diff mlp.onnx reference host --input '*=random:0'";

/// Show what a file holds: a model, an .npz or .npy, or a tensor in .pb
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// The file
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

/// Say how long a collective takes on a system, by which algorithm, and what bounds it
#[derive(Debug, Args)]
#[command(after_help = COLLECTIVE_HELP)]
pub(super) struct CollectiveArgs {
    /// all-reduce, all-gather, reduce-scatter, all-to-all, broadcast, permute or point-to-point
    #[arg(required_unless_present = "measured")]
    pub(super) kind: Option<String>,
    #[command(flatten)]
    pub(super) fabric: FabricArgs,
    /// How many chips take part, from the first on [default: all]
    #[arg(long, value_name = "N")]
    pub(super) ranks: Option<usize>,
    /// The whole buffer: an all-reduce's vector, an all-gather's output, a reduce-scatter's input, one rank's buffer of an all-to-all: 1024, 4MiB
    #[arg(long, value_name = "SIZE", value_parser = bytes, required_unless_present = "measured")]
    pub(super) bytes: Option<usize>,
    /// The element type
    #[arg(long, value_name = "TYPE", default_value = "bf16")]
    pub(super) dtype: String,
    /// ring, ring-bidirectional, torus, halving-doubling, double-binary-tree, direct, one-step, in-switch or hierarchical [default: the one predicted fastest]
    #[arg(long, value_name = "NAME")]
    pub(super) algorithm: Option<String>,
    /// A protocol of the system's [default: the one predicted fastest]
    #[arg(long, value_name = "NAME")]
    pub(super) protocol: Option<String>,
    /// In how many chunks the buffer goes through [default: the protocol's]
    #[arg(long, value_name = "N")]
    pub(super) chunks: Option<u32>,
    /// Move every transfer over its route, links shared fairly, instead of the closed form
    #[arg(long)]
    pub(super) simulate: bool,
    /// Compare with measurements instead: rows of collective,dtype,ranks,bytes,latency_us
    #[arg(long, value_name = "F.csv", conflicts_with_all = ["kind", "ranks", "bytes", "simulate"])]
    pub(super) measured: Option<PathBuf>,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

const COLLECTIVE_HELP: &str = "\
Examples:
  systole collective all-reduce --system dgx-h100 --ranks 8 --bytes 64MiB --dtype f16
  systole collective all-to-all --system 'trn3-gen2-144*64' --bytes 1MiB
  systole collective all-gather --system trn2-ultra64 --bytes 1GiB --set link_gbs='[128,128,128]'
  systole collective --system dgx-a100 --measured a100.csv";

#[derive(Debug, Args)]
pub(super) struct FabricArgs {
    /// A system: a name (see `systole list systems`), several of one as NAME*COUNT, or a description FILE.toml
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub(super) system: String,
    /// Change one value of its description: tier.nvlink.link_gbs=30, or hop_us=0.2 where only one key ends so
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
}

/// Find the best way to divide a language model among the chips of a system: time, memory, energy, money
#[derive(Debug, Args)]
#[command(after_help = PLAN_HELP)]
pub(super) struct PlanArgs {
    /// The model's config.json; no weights are needed
    pub(super) config: PathBuf,
    /// A system by name, several of one as NAME*COUNT, or a description file; give it again to compare
    #[arg(long, value_name = "NAME|F.toml", required = true)]
    pub(super) system: Vec<String>,
    /// What the system does with the model
    #[arg(long, value_name = "WHAT", default_value = "train")]
    pub(super) workload: Workload,
    /// Sequences of a step, over the whole system [default: by --tokens; decode: 16 a chip; prefill: 1 a chip]
    #[arg(long, value_name = "B", value_parser = count)]
    pub(super) batch: Option<usize>,
    /// Length of each sequence; of decoding, positions that are seen [default: 8192, or what the model has]
    #[arg(long, value_name = "L", value_parser = count)]
    pub(super) seq: Option<usize>,
    /// Tokens of a step, instead of --batch [default of train: 2^24]
    #[arg(long, value_name = "T", value_parser = tokens, conflicts_with = "batch")]
    pub(super) tokens: Option<f64>,
    /// In which type products are computed, and weights are kept where they serve
    #[arg(long, value_name = "TYPE", default_value = "bf16")]
    pub(super) precision: PlanPrecision,
    /// Whether attention is fused, or keeps its scores in memory [default: fused, but for GPT-2's family]
    #[arg(long, value_name = "HOW")]
    pub(super) attention: Option<Attention>,
    /// Fix parts of the mesh: dp, tp, pp, ep, microbatch, interleave, recompute=attention|layers, shard=optimizer|weights
    #[arg(long, value_name = "dp=64,tp=8,…")]
    pub(super) mesh: Option<String>,
    /// Also say what a run over so many tokens takes: days, energy, money, failures
    #[arg(long, value_name = "T", value_parser = tokens)]
    pub(super) train_tokens: Option<f64>,
    /// Take as many of the system as this power feeds, the building included
    #[arg(long, value_name = "MW", value_parser = positive)]
    pub(super) power_mw: Option<f64>,
    /// How long writing a checkpoint stops training, in seconds
    #[arg(long, value_name = "S", default_value = "20", value_parser = positive)]
    pub(super) checkpoint_s: f64,
    /// How long it takes to go on after a failure, in seconds
    #[arg(long, value_name = "S", default_value = "300", value_parser = positive)]
    pub(super) restart_s: f64,
    /// Override a number of the system's description: economy.usd_per_chip_hour=2.5
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

const PLAN_HELP: &str = "\
Examples:
  systole plan llama-405b/config.json --system 'trn3-gen2-144*64' --train-tokens 15e12
  systole plan config.json --system 'dgx-h100*1024' --mesh dp=64,tp=8,pp=16 --batch 2048
  systole plan config.json --system trn2.48xl --workload decode --batch 32 --seq 10000
  systole plan config.json --system aifactory-trn3 --power-mw 5";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Attention {
    /// No score reaches memory
    Fused,
    /// All scores do
    Kept,
}

/// What is planned
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Workload {
    /// A step of training: forward, backward, optimizer
    Train,
    /// Reading prompts
    Prefill,
    /// One more token for each sequence
    Decode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum PlanPrecision {
    F32,
    F16,
    Bf16,
    F8,
    F4,
}

/// Recompute the figures of the announcements: what was claimed, by whom, what comes out here, and why
#[derive(Debug, Args)]
pub(super) struct ClaimsArgs {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Print a table of what there is
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Which table
    pub(super) what: Table,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Table {
    /// Passes of every level, in the order of the default pipeline
    Passes,
    /// Operations of graphs
    Ops,
    /// Targets
    Targets,
    /// Systems of many chips
    Systems,
    /// Algorithms of collectives
    Algorithms,
    /// Elementwise functions
    Functions,
    /// Codes of errors
    Codes,
    /// Element types
    Dtypes,
}

/// Explain the code of an error
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The code, as it stands in brackets after `error`
    pub(super) code: String,
}

#[derive(Debug, Args)]
pub(super) struct ModelArgs {
    /// An ONNX model, a graph in .tir text, or (but for compile) a saved program
    pub(super) model: PathBuf,
    /// What to compile for; see `systole list targets`
    #[arg(long, value_name = "NAME", default_value = "host")]
    pub(super) target: String,
    /// Bind a symbolic size, or an unnamed one as INPUT.AXIS
    #[arg(long = "dim", value_name = "NAME=N", value_parser = dim)]
    pub(super) dims: Vec<(String, usize)>,
    /// Compile for the CPU with no more than these features (target host)
    #[arg(long, value_name = "NAME")]
    pub(super) cpu: Option<String>,
    #[command(flatten)]
    pub(super) modeled: ModeledArgs,
    /// Divide the model among the ranks of a mesh, which run as threads: `dp=2,tp=4`. Without --shard, dp divides the batch and tp the weights of products
    #[arg(long, value_name = "AXIS=N,..", value_parser = mesh)]
    pub(super) mesh: Option<systole::Mesh>,
    /// Say how an input, output or value is divided: `x={dp,_}`, `y={_,(dp,tp)}`, `h={_,_,pp=1}`
    #[arg(long = "shard", value_name = "NAME={..}", value_parser = sharding)]
    pub(super) shardings: Vec<(String, String)>,
    /// Choose exchanges by their predicted time on a system, and print it; a name or a description file, see `systole list systems`. Ranks are its chips, or cores for modeled targets
    #[arg(long = "system", value_name = "NAME", requires = "mesh")]
    pub(super) system: Option<String>,
}

fn mesh(text: &str) -> Result<systole::Mesh, String> {
    systole::Mesh::parse(text)
}

fn sharding(text: &str) -> Result<(String, String), String> {
    let (name, sharding) = text.split_once('=').ok_or("a sharding is given as NAME={..}")?;
    Ok((name.to_owned(), sharding.to_owned()))
}

#[derive(Debug, Args)]
pub(super) struct ThreadArgs {
    /// How many threads compute (target host) [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) threads: Option<u16>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Inputs and outputs")]
pub(super) struct InputArgs {
    /// Give one input, or all that are not given otherwise as `*`. SPEC is @x.npy, @b.npz:x, @x.pb (ONNX TensorProto), zeros, random:SEED, random:SEED:LO..HI, or the elements: '2x2xf32=1 2 3 4'
    #[arg(long = "input", value_name = "NAME=SPEC")]
    pub(super) input: Vec<String>,
    /// Give the inputs that the bundle has arrays for
    #[arg(long, value_name = "F.npz")]
    pub(super) inputs: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Inputs and outputs")]
pub(super) struct OutputArgs {
    /// Save the outputs: in a bundle, or as .npy files in a folder (.pb for types that NumPy lacks)
    #[arg(long, value_name = "F.npz|DIR")]
    pub(super) outputs: Option<PathBuf>,
    /// Compare the outputs with those of a bundle
    #[arg(long, value_name = "F.npz")]
    pub(super) expect: Option<PathBuf>,
    /// How far values may differ: |a-e| <= ATOL + RTOL*|e|; integers and bools never may [default: 1e-4,1e-4, and 1e-2,1e-2 for types below f32]
    #[arg(long, value_name = "ATOL,RTOL", value_parser = tolerance, requires = "expect")]
    pub(super) tol: Option<(f64, f64)>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Looking inside (standard error, or files)")]
pub(super) struct LookArgs {
    /// Print the program after the passes that the pattern matches (`*` is any text)
    #[arg(long, value_name = "GLOB")]
    pub(super) print_after: Option<String>,
    /// Print the program after each pass that changed it
    #[arg(long)]
    pub(super) print_changed: bool,
    /// Write the program after each pass to NNN.PASS.tir in this folder
    #[arg(long, value_name = "DIR")]
    pub(super) dump_dir: Option<PathBuf>,
    /// Run only the first N optional passes, to find the one that breaks a program
    #[arg(long, value_name = "N")]
    pub(super) bisect_limit: Option<usize>,
    /// Verify the program after each pass
    #[arg(long)]
    pub(super) verify: bool,
    /// Print the rewrites that were considered and not done, with the reason
    #[arg(long)]
    pub(super) explain: bool,
}

#[derive(Debug, Args)]
pub(super) struct CommonArgs {
    /// Print one JSON object; errors too
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) limits: LimitArgs,
    #[command(flatten)]
    pub(super) talk: TalkArgs,
}

#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// End with exit code 6 after this time: 500ms, 60s, 2m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) time_limit: Option<Duration>,
    /// End with exit code 6 where more memory would be taken: 512MiB, 4GiB [default: what the machine has]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(super) mem_limit: Option<usize>,
}

#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Talking")]
pub(super) struct TalkArgs {
    /// Say more on standard error: each phase, each pass and its time
    #[arg(short, long, conflicts_with = "quiet")]
    pub(super) verbose: bool,
    /// Say nothing on standard error but errors
    #[arg(short, long)]
    pub(super) quiet: bool,
}

fn dim(text: &str) -> Result<(String, usize), String> {
    let (name, size) = text.rsplit_once('=').ok_or("must be NAME=N, such as batch=8")?;
    if name.is_empty() {
        return Err("must be NAME=N, such as batch=8".to_owned());
    }
    let size = size.parse().map_err(|_| format!("`{size}` is not a size"))?;
    Ok((name.to_owned(), size))
}

fn number(text: &str) -> Result<(String, i64), String> {
    let (name, number) = text.rsplit_once('=').ok_or("must be NAME=N, such as length=128")?;
    let number = number.parse().map_err(|_| format!("`{number}` is not a number"))?;
    Ok((name.to_owned(), number))
}

fn count(text: &str) -> Result<usize, String> {
    const MOST: usize = 1 << 31;
    let size = text.parse().ok().filter(|size| (1..=MOST).contains(size));
    size.ok_or_else(|| format!("`{text}` is not a whole number from 1 to {MOST}"))
}

/// A number of tokens, perhaps as `15e12`.
fn tokens(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (1.0..=1e18).contains(number));
    number.ok_or_else(|| format!("`{text}` is not a number of tokens from 1 to 1e18"))
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| *number > 0.0 && *number <= 1e9);
    number.ok_or_else(|| format!("`{text}` is not a number above 0, up to 1e9"))
}

fn tolerance(text: &str) -> Result<(f64, f64), String> {
    let problem = || "must be ATOL,RTOL, such as 1e-3,1e-3".to_owned();
    let number = |text: &str| {
        text.trim().parse::<f64>().ok().filter(|number| *number >= 0.0).ok_or_else(problem)
    };
    let (absolute, relative) = text.split_once(',').ok_or_else(problem)?;
    Ok((number(absolute)?, number(relative)?))
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "must be a number of seconds".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let factor = match unit {
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unknown unit `{unit}`; it is one of ms, s, m, h")),
    };
    number
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number * factor).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "must be a positive time, such as 60s".to_owned())
}

fn bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = split_unit(text);
    let factor: f64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1024.0 * 1024.0,
        "g" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "t" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(format!("unknown unit `{unit}`; it is one of KiB, MiB, GiB, TiB")),
    };
    let number = number.parse::<f64>().ok().map(|number| number * factor);
    number
        .filter(|bytes| *bytes >= 1.0 && *bytes < 2f64.powi(62))
        .map(|bytes| bytes as usize)
        .ok_or_else(|| "must be a positive size, such as 4GiB".to_owned())
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    (text[..end].trim(), text[end..].trim())
}
