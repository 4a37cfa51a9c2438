//! Short slices of every subject in turn, and what is made of them.
//!
//! One thread, kept on one CPU, does everything: a packet that it sends through a veth pair goes through the hooks of
//! both namespaces within the same call, so the thread's own CPU time is the whole cost of the packet. Time in which
//! others have the CPU does not count, and what they do to the caches hits all subjects alike, because each gets less
//! than a millisecond in turn and is compared with the baseline of the same round.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// CPU time of one packet, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Of the call that sends it, in which it is judged and put into the receiver's queue.
    pub sent: f64,
    /// Of that and the call that receives it.
    pub delivered: f64,
}

/// Which part of the cost.
pub type Part = fn(&Cost) -> f64;

/// Something to be measured: one slice. `None`: it was disturbed and is left out.
pub type Slice<'a> = Box<dyn FnMut() -> Result<Option<Cost>> + 'a>;

/// Per round the mean of several slices.
pub type Figures = Vec<Option<Cost>>;

/// CPU time of the calling thread.
pub fn cpu_time() -> Result<Duration> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?))
}

/// Keeps the calling thread on the last of its CPUs, and gives that one's number.
pub fn pin() -> Result<usize> {
    let thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(thread)?;
    let last = (0..CpuSet::count())
        .rev()
        .find(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .context("no CPU at all")?;
    let mut one = CpuSet::new();
    one.set(last)?;
    sched_setaffinity(thread, &one)?;
    Ok(last)
}

/// So many rounds; in each every subject has one slice. A round begins one subject further than the one before, so
/// that nobody always comes after the same neighbour or at the same moment of a periodic disturbance. For each subject
/// one figure for each round.
pub fn alternate(subjects: &mut [Slice<'_>], rounds: usize) -> Result<Vec<Figures>> {
    let count = subjects.len();
    let mut figures = vec![Vec::with_capacity(rounds); count];
    for round in 0..rounds {
        for step in 0..count {
            let subject = (round + step) % count;
            figures[subject].push(subjects[subject]()?);
        }
    }
    Ok(figures)
}

/// Round by round the mean of subjects that are alike; nothing for a round in which one was disturbed.
pub fn mean(alike: &[Figures]) -> Figures {
    let count = f64::from(u32::try_from(alike.len()).unwrap_or(u32::MAX));
    let rounds = alike.iter().map(Vec::len).min().unwrap_or(0);
    let of_round = |round: usize| {
        let costs: Option<Vec<Cost>> = alike.iter().map(|figures| figures[round]).collect();
        let costs = costs?;
        Some(Cost {
            sent: costs.iter().map(|cost| cost.sent).sum::<f64>() / count,
            delivered: costs.iter().map(|cost| cost.delivered).sum::<f64>() / count,
        })
    };
    (0..rounds).map(of_round).collect()
}

/// Median and quartiles.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// A quarter of the figures is below.
    pub low: f64,
    /// The middle one.
    pub median: f64,
    /// A quarter of the figures is above.
    pub high: f64,
}

impl Spread {
    /// Of at least one figure.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Result<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let at = |quarter: usize| {
            let position = figures.len().saturating_sub(1) * quarter / 4;
            figures.get(position).copied().context("every slice was disturbed")
        };
        Ok(Self {
            low: at(1)?,
            median: at(2)?,
            high: at(3)?,
        })
    }

    /// Of one subject's rounds that were not disturbed.
    pub fn of_rounds(figures: &[Option<Cost>], part: Part) -> Result<Self> {
        Self::of(figures.iter().flatten().map(part))
    }

    /// Packets a second of a subject over those of another one, from the rounds in which neither was disturbed.
    pub fn of_rate(subject: &[Option<Cost>], baseline: &[Option<Cost>], part: Part) -> Result<Self> {
        let rounds = subject.iter().zip(baseline);
        Self::of(rounds.filter_map(|(subject, baseline)| Some(part(baseline.as_ref()?) / part(subject.as_ref()?))))
    }
}
