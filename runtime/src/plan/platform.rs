//! What the planner knows of a system: a roofline device, the time of collectives, power, money and failures.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

/// An exchange between chips.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exchange {
    /// Every chip gets the sum; bytes are those of the vector.
    AllReduce,
    /// Every chip gets all parts; bytes are those of the whole.
    AllGather,
    /// Every chip gets its part of the sum; bytes are those of the whole.
    ReduceScatter,
    /// Every chip sends a part to every other; bytes are those of one chip's buffer.
    AllToAll,
    /// One chip sends to another.
    Send,
}

/// The chips of an exchange: for each dimension of the mesh that takes part, how many and how far apart.
pub(super) type Axes = Vec<(usize, usize)>;

/// The time of exchanges.
pub trait Fabric: Send + Sync {
    /// In seconds; or why there is no answer.
    fn seconds(
        &self,
        exchange: Exchange,
        axes: &[(usize, usize)],
        bytes: u64,
    ) -> Result<f64, String>;
    /// The same where all cores of those chips take part, because tensors are divided among cores.
    fn seconds_by_cores(
        &self,
        exchange: Exchange,
        axes: &[(usize, usize)],
        bytes: u64,
    ) -> Result<f64, String> {
        self.seconds(exchange, axes, bytes)
    }
    /// How many cores of a chip tensors are divided among.
    fn cores(&self) -> usize {
        1
    }
    /// What exchanging that many bytes a chip takes in energy, in joules a chip.
    fn joules(&self, axes: &[(usize, usize)], bytes: f64) -> f64;
}

/// Operations a second of one chip, by the name of the element type; nothing where it has none of its width.
pub type Peak = dyn Fn(&str) -> Option<f64> + Send + Sync;

/// A system as the planner sees it. Numbers come from the system's description file.
pub struct Platform {
    /// Its name.
    pub name: String,
    /// The chip's name.
    pub device: String,
    /// How many chips there are.
    pub chips: usize,
    /// Operations a second of one chip, by element type.
    pub peak: Box<Peak>,
    /// The part of the peak that large products reach.
    pub compute_efficiency: f64,
    /// Bytes of memory of one chip.
    pub memory_bytes: f64,
    /// Bytes a second of that memory.
    pub memory_rate: f64,
    /// The part of that rate that streams reach.
    pub memory_efficiency: f64,
    /// What a kernel takes that waits for the one before, besides operations and bytes, in seconds.
    pub kernel_s: f64,
    /// Exchanges.
    pub fabric: Box<dyn Fabric>,
    /// One chip at full load, in watts.
    pub chip_w: f64,
    /// The part of that which it takes when idle.
    pub idle_fraction: f64,
    /// What an operation at the peak takes, as a part of chip power over peak.
    pub compute_energy_fraction: f64,
    /// What a bit from memory takes, in joules.
    pub memory_j_per_bit: f64,
    /// Hosts, switches, fans and power supplies of the whole, in watts.
    pub other_w: f64,
    /// Racks of the whole.
    pub racks: f64,
    /// Power of the building over power of the machines.
    pub pue: f64,
    /// Electricity, in dollars.
    pub usd_per_kwh: f64,
    /// Rent of a chip, in dollars.
    pub usd_per_chip_hour: f64,
    /// Unplanned failures.
    pub failures_per_chip_hour: f64,
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platform")
            .field("name", &self.name)
            .field("chips", &self.chips)
            .finish_non_exhaustive()
    }
}

impl Platform {
    /// Power of the machines at full load, without the building, in watts.
    pub fn full_w(&self) -> f64 {
        self.chips as f64 * self.chip_w + self.other_w
    }

    /// How long products of so many operations take that read and write so many bytes.
    pub fn product_s(&self, operations: f64, peak: f64, bytes: f64) -> f64 {
        (operations / (peak * self.compute_efficiency)).max(self.moving_s(bytes))
    }

    /// How long it takes to read and write so many bytes.
    pub fn moving_s(&self, bytes: f64) -> f64 {
        bytes / (self.memory_rate * self.memory_efficiency)
    }
}

type Question = (Exchange, Axes, u64, Reach);

/// Who takes part in an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Chips,
    Cores,
}

/// A fabric's answers, each asked for once.
pub(super) struct Answers<'a> {
    fabric: &'a dyn Fabric,
    known: Mutex<BTreeMap<Question, f64>>,
}

impl fmt::Debug for Answers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answers")
    }
}

impl<'a> Answers<'a> {
    /// No answers yet.
    pub(super) fn new(fabric: &'a dyn Fabric) -> Answers<'a> {
        Answers { fabric, known: Mutex::default() }
    }

    /// The time of an exchange in seconds; nothing is exchanged by one chip, or of no bytes.
    pub(super) fn seconds(
        &self,
        exchange: Exchange,
        axes: &[(usize, usize)],
        bytes: f64,
    ) -> Result<f64, String> {
        self.answer(exchange, axes, bytes, Reach::Chips)
    }

    /// The same where all cores of the chips take part.
    pub(super) fn seconds_by_cores(
        &self,
        exchange: Exchange,
        axes: &[(usize, usize)],
        bytes: f64,
    ) -> Result<f64, String> {
        let reach = if self.fabric.cores() > 1 { Reach::Cores } else { Reach::Chips };
        self.answer(exchange, axes, bytes, reach)
    }

    fn answer(
        &self,
        exchange: Exchange,
        axes: &[(usize, usize)],
        bytes: f64,
        reach: Reach,
    ) -> Result<f64, String> {
        let axes: Axes = axes.iter().copied().filter(|&(count, _)| count > 1).collect();
        if (axes.is_empty() && reach == Reach::Chips) || bytes < 1.0 {
            return Ok(0.0);
        }
        // Every question has a whole number of bytes, so that equal ones are found again.
        let question = (exchange, axes, bytes.ceil() as u64, reach);
        let lock = || self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(&known) = lock().get(&question) {
            return Ok(known);
        }
        let seconds = match reach {
            Reach::Chips => self.fabric.seconds(exchange, &question.1, question.2)?,
            Reach::Cores => self.fabric.seconds_by_cores(exchange, &question.1, question.2)?,
        };
        lock().insert(question, seconds);
        Ok(seconds)
    }
}
