//! The quantitative claims of the announcements, recomputed from the descriptions of systems: what holds, what does not,
//! what cannot be said, and why.

use super::systems::load;
use systole_interconnect::System;

/// A claim with what comes out here.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// What is claimed.
    pub claim: &'static str,
    /// Who says so.
    pub source: &'static str,
    /// The figure that is claimed.
    pub stated: f64,
    /// The figure that comes out here.
    pub figure: Option<f64>,
    /// What both count.
    pub unit: &'static str,
    /// Whether it holds.
    pub verdict: Verdict,
    /// How the figure comes about.
    pub why: String,
}

/// Whether a claim holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Holds,
    /// It does not.
    Fails,
    /// It follows from nothing that is public, or it is where the description comes from.
    Open,
}

impl Verdict {
    /// How it is written.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Holds => "holds",
            Verdict::Fails => "does not hold",
            Verdict::Open => "cannot be checked",
        }
    }
}

/// How a figure is held against what is stated.
#[derive(Clone, Copy)]
enum Test {
    /// At least as much, within that part of it.
    AtLeast(f64),
    /// As much, within that part of it.
    Near(f64),
    /// No figure of ours may decide it.
    Undecided,
}

/// Every claim.
pub fn claims() -> Result<Vec<Claim>, String> {
    let get = |name: &str| load(name, &[]);
    let systems = Systems {
        trn1: get("trn1.32xl")?,
        trn2: get("trn2.48xl")?,
        ultra2: get("trn2-ultra64")?,
        ultra3: get("trn3-gen2-144")?,
        trn4: get("trn4-nvlf72")?,
        trn4_two: get("trn4-nvlf144")?,
        h200: get("dgx-h200")?,
        gb200: get("gb200-nvl72")?,
        rubin: get("vr-nvl72")?,
        optical: get("nvl1152-optical")?,
        rainier: get("rainier")?,
        joined: get("nvlf-cpu")?,
        pcie: get("pcie5")?,
    };
    let mut claims = generation(&systems);
    claims.extend(energy(&systems));
    claims.extend(served(&systems));
    claims.extend(prices(&systems));
    claims.extend(clusters(&systems));
    claims.extend(next(&systems));
    Ok(claims)
}

struct Systems {
    trn1: System,
    trn2: System,
    ultra2: System,
    ultra3: System,
    trn4: System,
    trn4_two: System,
    h200: System,
    gb200: System,
    rubin: System,
    optical: System,
    rainier: System,
    joined: System,
    pcie: System,
}

fn judged(
    claim: &'static str,
    source: &'static str,
    (stated, unit): (f64, &'static str),
    figure: Option<f64>,
    test: Test,
    why: String,
) -> Claim {
    let verdict = match (test, figure) {
        (Test::Undecided, _) | (_, None) => Verdict::Open,
        (Test::AtLeast(slack), Some(figure)) if figure >= stated * (1.0 - slack) => Verdict::Holds,
        (Test::Near(slack), Some(figure)) if (figure - stated).abs() <= stated * slack => {
            Verdict::Holds
        }
        (Test::AtLeast(_) | Test::Near(_), Some(_)) => Verdict::Fails,
    };
    Claim { claim, source, stated, figure, unit, verdict, why }
}

fn peak(system: &System, dtype: &str) -> f64 {
    system.device.peak_tflops(dtype).unwrap_or(f64::NAN)
}

/// 10^15 operations a second of the whole.
fn whole(system: &System, dtype: &str) -> f64 {
    system.chips() as f64 * peak(system, dtype) / 1e3
}

/// 10^12 bytes a second of the whole.
fn bandwidth(system: &System) -> f64 {
    system.chips() as f64 * system.device.memory_gbs / 1e3
}

fn capacity(system: &System) -> f64 {
    system.chips() as f64 * system.device.memory_gib
}

const SUMMIT: &str = "AWS re:Invent 2025, as reported";

fn generation(systems: &Systems) -> Vec<Claim> {
    let Systems { trn1, trn2, ultra2, ultra3, .. } = systems;
    let chips = ultra3.chips() as f64;
    let sizes: Vec<String> = ultra3.tiers.iter().map(|tier| tier.size().to_string()).collect();
    let compute = whole(ultra3, "f8") / whole(ultra2, "f8");
    let memory = bandwidth(ultra3) / bandwidth(ultra2);
    let room = capacity(ultra3) / capacity(ultra2);
    let (bf16, f8) =
        (peak(trn2, "bf16") / peak(trn1, "bf16"), peak(trn2, "f8") / peak(trn1, "bf16"));
    vec![
        judged(
            "a Trainium3 UltraServer joins 144 chips",
            "AWS documentation",
            (144.0, "chips"),
            Some(chips),
            Test::Near(0.0),
            format!("tiers of {} members in the description", sizes.join(" x ")),
        ),
        judged(
            "a Trainium3 UltraServer computes more than four times what the one before it does",
            SUMMIT,
            (4.0, "times"),
            Some(compute),
            Test::AtLeast(0.0),
            format!(
                "{:.1} over {:.1} PF in 8 bits: {:.2} by the number of chips, {:.2} by the chip, which needs MX formats",
                whole(ultra3, "f8"),
                whole(ultra2, "f8"),
                chips / ultra2.chips() as f64,
                peak(ultra3, "f8") / peak(ultra2, "f8"),
            ),
        ),
        judged(
            "it computes 4.4 times as much",
            SUMMIT,
            (4.4, "times"),
            Some(compute),
            Test::Near(0.02),
            format!(
                "by the peaks of the chips; in bf16, which has no MX form, it is only {:.2}",
                whole(ultra3, "bf16") / whole(ultra2, "bf16")
            ),
        ),
        judged(
            "it computes 362 PF in MXFP8, a Trainium2 UltraServer 83.2 PF in FP8",
            "AWS documentation",
            (362.4 / 83.2, "times"),
            Some(compute),
            Test::Near(0.01),
            format!(
                "{:.1} and {:.1} PF by the chips' own peaks",
                whole(ultra3, "f8"),
                whole(ultra2, "f8")
            ),
        ),
        judged(
            "it has 20.7 TB of memory at 706 TB/s",
            "AWS documentation",
            (706.0, "TB/s"),
            Some(bandwidth(ultra3)),
            Test::Near(0.01),
            format!("and {:.0} GiB, which are called TB", capacity(ultra3)),
        ),
        judged(
            "it has nearly four times the memory bandwidth",
            SUMMIT,
            (4.0, "times"),
            Some(memory),
            Test::Near(0.06),
            format!("{:.1} over {:.1} TB/s", bandwidth(ultra3), bandwidth(ultra2)),
        ),
        judged(
            "it has four times the memory",
            "TechCrunch, 2025-12",
            (4.0, "times"),
            Some(room),
            Test::Near(0.06),
            format!("{:.0} over {:.0} GiB", capacity(ultra3), capacity(ultra2)),
        ),
        judged(
            "Trainium2 trains four times as fast as Trainium",
            "AWS, as reported by NAND Research",
            (4.0, "times"),
            Some(bf16),
            Test::Undecided,
            format!(
                "peaks are {bf16:.2} times as high in bf16, {f8:.2} from bf16 to 8 bits, and bandwidth {:.2}; the claim lies between \
                 and is of a workload",
                trn2.device.memory_gbs / trn1.device.memory_gbs
            ),
        ),
    ]
}

fn energy(systems: &Systems) -> Vec<Claim> {
    let Systems { ultra2, ultra3, trn1, trn2, .. } = systems;
    let compute = whole(ultra3, "f8") / whole(ultra2, "f8");
    let power = ultra3.power_kw() / ultra2.power_kw();
    let per_operation = |system: &System, dtype: &str| system.economy.chip_w / peak(system, dtype);
    let chip = per_operation(ultra3, "f8") / per_operation(ultra2, "f8");
    let server = power / compute;
    let old = per_operation(trn1, "bf16") / per_operation(trn2, "bf16");
    vec![
        judged(
            "Trainium3 takes 40 % less energy",
            "the announcement, as reported",
            (0.60, "of the energy"),
            Some(chip),
            Test::Near(0.05),
            format!(
                "an 8-bit operation takes {:.3} pJ at full load against {:.3}, by chip powers of {:.0} and {:.0} W that are not \
                 published but inferred",
                per_operation(ultra3, "f8"),
                per_operation(ultra2, "f8"),
                ultra3.economy.chip_w,
                ultra2.economy.chip_w
            ),
        ),
        judged(
            "Trainium3 is 40 % more energy efficient",
            "TechCrunch, 2025-12",
            (1.40, "times the operations a joule"),
            Some(1.0 / server),
            Test::Near(0.10),
            format!(
                "whole servers: {compute:.2} times the operations at {power:.2} times the power ({:.0} over {:.0} kW, both inferred); \
                 1.40 is the same as {:.0} % less energy, so this claim and the one of 40 % less are not one figure",
                ultra3.power_kw(),
                ultra2.power_kw(),
                100.0 * (1.0 - 1.0 / 1.4)
            ),
        ),
        judged(
            "a Trainium3 UltraServer is four times as energy efficient",
            "AWS, as reported",
            (4.0, "times the operations a joule"),
            Some(1.0 / server),
            Test::AtLeast(0.05),
            format!(
                "it would mean {compute:.2} times the operations at {:.2} times the power, {:.0} W a chip; tokens a watt of one workload \
                 may reach it, operations do not",
                compute / 4.0,
                1e3 * ultra2.power_kw() * compute / 4.0 / ultra3.chips() as f64
            ),
        ),
        judged(
            "four times the speed in the same energy footprint",
            "the announcement, as reported",
            (1.0, "times the power"),
            Some(power),
            Test::Near(0.10),
            format!("{:.0} over {:.0} kW", ultra3.power_kw(), ultra2.power_kw()),
        ),
        judged(
            "Trainium2 is up to twice as energy efficient as Trainium",
            "AWS, as reported by NAND Research",
            (2.0, "times the operations a joule"),
            Some(old),
            Test::Undecided,
            "no power of a Trainium chip is published: that of the first is inferred from its peak"
                .to_owned(),
        ),
    ]
}

/// Figures of workloads, which include software: what the machines alone give is told beside.
fn served(systems: &Systems) -> Vec<Claim> {
    let Systems { ultra2, ultra3, .. } = systems;
    let compute = peak(ultra3, "f8") / peak(ultra2, "f8");
    let memory = ultra3.device.memory_gbs / ultra2.device.memory_gbs;
    let power = ultra3.power_kw() / ultra2.power_kw();
    let streamed = bandwidth(ultra3) / bandwidth(ultra2) / power;
    vec![
        judged(
            "GPT-OSS runs at three times the throughput a chip on Trainium3",
            SUMMIT,
            (3.0, "times"),
            Some(compute.max(memory)),
            Test::Undecided,
            format!(
                "a chip has {compute:.2} times the operations in 8 bits and {memory:.2} times the bandwidth; more is software and narrower types"
            ),
        ),
        judged(
            "GPT-OSS answers four times as fast on Trainium3",
            SUMMIT,
            (4.0, "times"),
            Some(memory),
            Test::Undecided,
            format!(
                "one sequence waits for memory, which is {memory:.2} times as fast, and for links; more is software"
            ),
        ),
        judged(
            "Trainium3 gives five times the output tokens a megawatt",
            SUMMIT,
            (5.0, "times"),
            Some(streamed),
            Test::Undecided,
            format!(
                "weights stream {:.2} times as fast at {power:.2} times the power, both of whole servers; in 8 bits there are {:.2} times the                  operations: tokens of one workload, not of the machine",
                bandwidth(ultra3) / bandwidth(ultra2),
                whole(ultra3, "f8") / whole(ultra2, "f8")
            ),
        ),
    ]
}

/// How far machines are joined.
fn clusters(systems: &Systems) -> Vec<Claim> {
    let Systems { ultra3, trn1, rainier, joined, pcie, .. } = systems;
    let most = |system: &System| (system.chips() * system.most()) as f64;
    let bits = |system: &System| system.tiers.first().map_or(f64::NAN, |tier| tier.pj_per_bit);
    vec![
        judged(
            "Project Rainier joins nearly 500,000 Trainium2",
            "AWS, 2025-10, as reported",
            (500_000.0, "chips"),
            Some(most(rainier)),
            Test::AtLeast(0.0),
            format!(
                "{} servers of {} on one network at most, in the description",
                rainier.most(),
                rainier.chips()
            ),
        ),
        judged(
            "clusters of more than 100,000 Trainium",
            "AWS documentation",
            (100_000.0, "chips"),
            Some(most(trn1)),
            Test::AtLeast(0.0),
            format!("{} instances of {} at most", trn1.most(), trn1.chips()),
        ),
        judged(
            "clusters of a million Trainium3, ten times as many as before",
            "AWS, as reported",
            (1_000_000.0, "chips"),
            Some(most(ultra3)),
            Test::AtLeast(0.0),
            format!(
                "{} servers of {} at most; what such a network blocks is not published",
                ultra3.most(),
                ultra3.chips()
            ),
        ),
        judged(
            "NVLink-C2C takes less than a fifth of the energy of PCIe 5",
            "NVIDIA, as reported",
            (5.0, "times"),
            Some(bits(pcie) / bits(joined)),
            Test::Undecided,
            format!(
                "{:.1} against {:.1} pJ a bit, but that of PCIe comes from this very claim",
                bits(joined),
                bits(pcie)
            ),
        ),
    ]
}

fn prices(systems: &Systems) -> Vec<Claim> {
    let Systems { trn2, h200, ultra3, gb200, .. } = systems;
    let per_dollar =
        |system: &System, dtype: &str| peak(system, dtype) / system.economy.usd_per_chip_hour;
    let peaks = per_dollar(trn2, "bf16") / per_dollar(h200, "bf16");
    let large = |system: &System| system.device.compute_efficiency;
    let achieved = peaks * large(trn2) / large(h200);
    let needed = 1.4 / peaks;
    let next = per_dollar(ultra3, "f8") / per_dollar(gb200, "f8");
    vec![
        judged(
            "Trainium2 has 30 to 40 % better price and performance than GPUs",
            "AWS",
            (1.4, "times the operations a dollar"),
            Some(achieved),
            Test::AtLeast(0.0),
            format!(
                "at the rents of the descriptions, {:.2} and {:.2} $ a chip and hour, peaks a dollar are {peaks:.2} times those of an H200; \
                 1.40 is left where {:.0} % of the GPU's utilization is reached",
                trn2.economy.usd_per_chip_hour,
                h200.economy.usd_per_chip_hour,
                100.0 * needed
            ),
        ),
        judged(
            "customers save up to 40 % with Trainium2",
            "the announcement, as reported",
            (0.40, "of the cost"),
            Some(1.0 - 1.0 / achieved),
            Test::AtLeast(0.0),
            format!(
                "the same operations at the stated efficiencies; a saving of 40 % is {:.2} times the operations a dollar, and needs {:.0} % of \
                 the GPU's utilization",
                1.0 / 0.6,
                100.0 / 0.6 / peaks
            ),
        ),
        judged(
            "Trainium3 saves a similar part against Blackwell",
            "the announcement, as reported",
            (1.4, "times the operations a dollar"),
            Some(next),
            Test::Undecided,
            "no rent of Trainium3 is published; the description's is inferred from this very claim"
                .to_owned(),
        ),
        judged(
            "Apple expects up to 50 % better efficiency from Trainium2",
            "Apple, at re:Invent 2024",
            (1.5, "times"),
            None,
            Test::Undecided,
            "a customer's statement about a workload that is not known".to_owned(),
        ),
    ]
}

fn next(systems: &Systems) -> Vec<Claim> {
    let Systems { ultra3, trn4, trn4_two, gb200, rubin, optical, .. } = systems;
    let ratio = |dtype: &str| peak(trn4, dtype) / peak(ultra3, dtype);
    let memory = trn4.device.memory_gbs / ultra3.device.memory_gbs;
    let link =
        |system: &System| system.tiers.first().map_or(f64::NAN, |tier| 2.0 * tier.injection_gbs());
    let domain = optical.chips() as f64;
    vec![
        judged(
            "Trainium4 computes at least six times as much in 4 bits",
            SUMMIT,
            (6.0, "times"),
            Some(ratio("f4")),
            Test::AtLeast(0.01),
            "the description is made of this ratio, so that nothing is checked but the arithmetic"
                .to_owned(),
        ),
        judged(
            "Trainium4 computes three times as much in 8 bits",
            SUMMIT,
            (3.0, "times"),
            Some(ratio("f8")),
            Test::AtLeast(0.01),
            "the description is made of this ratio, so that nothing is checked but the arithmetic"
                .to_owned(),
        ),
        judged(
            "Trainium4 has four times the memory bandwidth",
            SUMMIT,
            (4.0, "times"),
            Some(memory),
            Test::AtLeast(0.01),
            "the description is made of this ratio, so that nothing is checked but the arithmetic"
                .to_owned(),
        ),
        judged(
            "Trainium4 speaks NVLink 6: 3.6 TB/s a chip, in both directions together",
            "NVIDIA and AWS, as reported",
            (3600.0, "GB/s"),
            Some(link(trn4)),
            Test::Near(0.01),
            format!(
                "{} chips in one rack; {} over two, where the rate between racks is not known",
                trn4.chips(),
                trn4_two.chips()
            ),
        ),
        judged(
            "one NVLink domain joins 72 GPUs at 130 TB/s",
            "NVIDIA",
            (130.0, "TB/s"),
            Some(gb200.chips() as f64 * link(gb200) / 1e3),
            Test::Near(0.01),
            format!(
                "{} GPUs at {:.0} GB/s in both directions together",
                gb200.chips(),
                link(gb200)
            ),
        ),
        judged(
            "the next one joins 72 packages at 260 TB/s",
            "NVIDIA",
            (260.0, "TB/s"),
            Some(rubin.chips() as f64 * link(rubin) / 1e3),
            Test::Near(0.01),
            format!(
                "{} packages at {:.0} GB/s in both directions together",
                rubin.chips(),
                link(rubin)
            ),
        ),
        judged(
            "over 1,000 GPUs in one domain before 2028",
            "NVIDIA's roadmap of GTC 2026, as reported",
            (1000.0, "GPUs"),
            Some(domain),
            Test::AtLeast(0.0),
            format!(
                "{} tiers of optics and copper in the description of the roadmap; whether it ships is not for a model to say",
                optical.tiers.len()
            ),
        ),
    ]
}
