//! Scenarios: what users write in a TOML file, or one of those that come with the program. docs/bench.md has every key.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use std::sync::atomic::AtomicBool;
//!
//! use bench::scenario::{Progress, Scenario};
//!
//! let scenario = Scenario::find("burst")?;
//! let topology = scenario.topology()?;
//! let outcome = scenario.run(&topology, &Progress::new(&scenario), &AtomicBool::new(false))?;
//! topology.remove()?;
//! println!("{} made, {} failed", outcome.all.made, outcome.all.failures());
//! # Ok(())
//! # }
//! ```

mod built_in;
mod errors;
mod keys;
mod parse;
mod reader;

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

pub use self::built_in::names;
pub use self::errors::{Errors, Problem};
pub use self::keys::reference;
use crate::load::{self, Floods, Load};
use crate::netns::{self, Shape, Tool, Topology};
use crate::ports;

/// Most loads of a scenario.
pub const MOST_LOADS: usize = ports::LOADS as usize;
/// Most connections, flows or packets that one load may start on average.
pub const MOST_STARTS: f64 = 50e6;
/// How often it is looked whether the loads are to end, or have ended.
const LOOK: Duration = Duration::from_millis(20);
/// No scenario is longer; a device or an endless pipe given by mistake must not fill the memory.
const LONGEST_FILE: u64 = 1 << 20;

/// What is sent, when, from where, and through which topology.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scenario {
    /// What it is called in results.
    pub name: String,
    /// What it is for, for people.
    pub about: String,
    /// What the loads' own seeds are made from.
    pub seed: u64,
    /// For how long loads start anything.
    pub duration: Duration,
    /// What it runs through.
    #[serde(rename = "topology")]
    pub shape: Shape,
    /// Entries that stand in the gateway's table before the load begins.
    #[serde(rename = "table")]
    pub prefill: Prefill,
    /// Its loads; at least one.
    pub loads: Vec<Load>,
}

/// What the table holds before the load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Prefill {
    /// Established TCP entries.
    pub entries: u64,
}

/// How far the loads of a scenario have come.
#[derive(Clone, Debug)]
pub struct Progress(Vec<Arc<load::Progress>>);

/// What became of a scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Of each load, in the order of the file.
    pub loads: Vec<LoadOutcome>,
    /// Of all loads together.
    pub all: load::Outcome,
}

/// What became of a load.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoadOutcome {
    /// What the load is called.
    pub name: String,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: load::Outcome,
}

impl Progress {
    /// Of a scenario that has not begun.
    pub fn new(scenario: &Scenario) -> Self {
        Self(scenario.loads.iter().map(|_| Arc::default()).collect())
    }

    /// Of each load, in the order of the file.
    pub fn loads(&self) -> impl Iterator<Item = &load::Progress> {
        self.0.iter().map(Arc::as_ref)
    }

    /// One figure, of all loads together.
    pub fn sum(&self, of: impl Fn(&load::Progress) -> u64) -> u64 {
        self.loads().map(of).sum()
    }
}

impl Scenario {
    /// Reads a scenario from `text`; `file` stands for it in messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, Errors> {
        parse::parse(file, text)
    }

    /// The scenario of this name that comes with the program.
    pub fn built_in(name: &str) -> Option<Result<Self, Errors>> {
        built_in::text(name).map(|text| Self::parse(name, text))
    }

    /// The scenario in the file at `path`.
    pub fn load(path: &Path) -> Result<Self, Errors> {
        let file = path.display().to_string();
        let whole = |message: String| Errors::whole_file(&file, message);
        let mut text = String::new();
        match File::open(path).and_then(|file| file.take(LONGEST_FILE + 1).read_to_string(&mut text)) {
            Ok(length) if length as u64 <= LONGEST_FILE => Self::parse(&file, &text),
            Ok(_) => Err(whole("is longer than 1 MiB and so no scenario".to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(whole(format!(
                "there is no such file; give one, or a scenario that comes with the program: {}",
                names().collect::<Vec<_>>().join(", ")
            ))),
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                Err(whole("is not UTF-8 text; save the file as UTF-8".to_owned()))
            }
            Err(error) => Err(whole(format!("cannot be read: {error}"))),
        }
    }

    /// A scenario that comes with the program, or else that in a file.
    pub fn find(name_or_file: &str) -> Result<Self, Errors> {
        Self::built_in(name_or_file).unwrap_or_else(|| Self::load(Path::new(name_or_file)))
    }

    /// What to say where the scenario of [`Scenario::find`] is right, and the value of one of its keys is not for what is to be
    /// done with it. `message`: what is wrong and the way out.
    pub fn refuse(name_or_file: &str, key: &str, message: String) -> Errors {
        let text = built_in::text(name_or_file).map(str::to_owned).or_else(|| fs::read_to_string(name_or_file).ok());
        Errors::of_key(name_or_file, text.as_deref(), key, message)
    }

    /// Programs that have to be installed for it.
    pub fn tools(&self) -> Vec<Tool> {
        let mut tools = self.shape.kind.tools();
        let of_loads = self.loads.iter().filter_map(|load| load.traffic.tool());
        for tool in of_loads {
            if !tools.contains(&tool) {
                tools.push(tool);
            }
        }
        tools
    }

    /// Makes the topology that it asks for, around the network namespace of the calling thread.
    pub fn topology(&self) -> Result<Topology, netns::Error> {
        Topology::shaped(self.shape)
    }

    /// Runs all loads, each at its time, and returns when the last has ended. Ends early, with what is open given up, once
    /// `stop` is true, or after an error of one load. The topology must be one that the scenario asks for.
    pub fn run(&self, topology: &Topology, progress: &Progress, stop: &AtomicBool) -> Result<Outcome> {
        let open = self.loads.iter().map(|load| load.traffic.most_open()).sum();
        crate::churn::raise_file_limit(open)?;
        let (end, floods) = (AtomicBool::new(false), Floods::of(&self.loads));
        let outcomes = thread::scope(|scope| {
            let start = |(load, progress): (&'_ Load, &'_ Arc<load::Progress>)| {
                let (load, progress, floods, end) = (load.clone(), Arc::clone(progress), floods.as_ref(), &end);
                scope.spawn(move || {
                    let outcome = load.run(topology, floods, &progress, end);
                    if outcome.is_err() {
                        end.store(true, Ordering::Relaxed);
                    }
                    outcome.with_context(|| format!("the load {}", load.name))
                })
            };
            let threads: Vec<_> = self.loads.iter().zip(&progress.0).map(start).collect();
            while threads.iter().any(|thread| !thread.is_finished()) {
                if stop.load(Ordering::Relaxed) {
                    end.store(true, Ordering::Relaxed);
                }
                thread::sleep(LOOK);
            }
            let join = |thread: ScopedJoinHandle<'_, Result<load::Outcome>>| {
                thread.join().map_err(|_| anyhow!("a load panicked"))?
            };
            threads.into_iter().map(join).collect::<Vec<_>>()
        });
        let mut all = load::Outcome::new()?;
        let mut loads = Vec::new();
        for (load, outcome) in self.loads.iter().zip(outcomes) {
            let outcome = outcome?;
            all.merge(&outcome)?;
            loads.push(LoadOutcome { name: load.name.clone(), outcome });
        }
        Ok(Outcome { loads, all })
    }
}

#[cfg(test)]
mod tests;
