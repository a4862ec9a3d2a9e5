//! The attached programs: each signal by the best back end that this kernel allows it, and what they counted.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use guard_ebpf::{FATES, ICMP_FATE, ORIGINAL, OTHER_FATE, REPLY, SAMPLED, TCP_STATES, UDP_FATE};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use serde::Serialize;

use super::credit::Credit;
use super::kernel_log::{self, KernelLog};
use super::namespaces::ByNamespace;
use super::object::{KernelHalf, Maps, Restrictions, syscall};
use super::refused::OnDemand;
use super::selftest::{self, Verdict};
use super::signals::{BackEnd, CALLS_ARE_KNOWN, How, Program, Signal, Walk, programs};
use super::slots::{self, Sum};
use super::symbols::Symbols;
use super::{Error, events, sys};
use crate::observe::{Chains, Clashes, Destroys, HookTotals, TableFull, since_boot};

/// What a count by kprobes lacks on kernels before 6.7.
const NOT_COUNTED: &str = "this kernel does not count the runs that it skips while another kprobe's program is running on the \
                           CPU (Linux 6.7 and later do), so counts may be too low";

/// What to attach.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Only this back end; `None`: the best of each signal.
    pub back_end: Option<BackEnd>,
    /// Which inserts are walked.
    pub walk: Walk,
    /// Whether the kernel half's debug lines come to the log; without them it has no code for them.
    pub log: bool,
}

/// What became of one signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// The signal.
    pub signal: Signal,
    /// Its back end; `None`: it is off.
    pub back_end: Option<BackEnd>,
    /// Why each better back end was not taken.
    pub why: Vec<String>,
}

/// The attached programs. Dropping it detaches them and frees their maps; nothing is pinned.
pub struct Hooks {
    signals: Vec<Attached>,
    /// One insert in so many is walked; 0: none.
    walked: u64,
    /// Whether clashes tell which of them went in by the reply tuple alone.
    reply_only: bool,
    programs: Vec<Attachment>,
    /// Samples refused flows, when there are any.
    refused_flows: Option<OnDemand>,
    /// The kernel half's debug lines, where they are wanted.
    log: Option<KernelLog>,
    maps: Maps,
    /// CPUs online at the start.
    cpus: u64,
    /// Entries inserted up to the last reading.
    read: u64,
    namespaces: ByNamespace,
    /// What the programs had counted when the self-test was done, its own flows among it.
    origin: Sum,
    /// Whether the kernel has ctnetlink without a module.
    ctnetlink_built_in: bool,
}

/// One attached program.
struct Attachment {
    signal: Signal,
    program: OwnedFd,
    /// Detaches the program when it is closed.
    link: OwnedFd,
    /// What the kernel tells of the runs that it skips.
    misses: Misses,
}

/// What a kernel tells of runs that it skips.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Misses {
    /// The program's count.
    Program,
    /// That and the link's.
    ProgramAndLink,
    /// Nothing.
    NotCounted,
}

impl Hooks {
    /// Loads and attaches what this kernel allows, and proves it on flows of its own. An error means that nothing is
    /// attached.
    pub fn attach(options: Options) -> Result<Self, Error> {
        if options.back_end == Some(BackEnd::Proc) {
            return Err(Error::NotWanted);
        }
        // Kernels before 5.11 count maps and programs as locked memory, and 64 KiB are not enough for them. Where the limit
        // may not be raised, the loads say so.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
        let symbols = Symbols::read(Path::new("/"));
        let mut restrictions = Restrictions::default();
        let mut hooks = loop {
            let (hooks, found) = Self::attach_as(options, symbols.clone(), restrictions)?;
            if found == restrictions {
                break hooks;
            }
            // Once more from the beginning, with what this verifier allows.
            restrictions = found;
        };
        hooks.prove(symbols.no_ctnetlink(Path::new("/")));
        Ok(hooks)
    }

    /// Whether the kernel has ctnetlink without a module: known from the pass over kallsyms that the programs need, which
    /// is too dear for a second one.
    pub fn ctnetlink_is_built_in(&self) -> bool {
        self.ctnetlink_built_in
    }

    /// The answer's second part: what the verifier turned out not to allow; where that is news, the first is of no use.
    fn attach_as(
        options: Options,
        symbols: Symbols,
        restrictions: Restrictions,
    ) -> Result<(Self, Restrictions), Error> {
        let symbols = if restrictions.no_helper { symbols.without_addresses() } else { symbols };
        let (no_table, ctnetlink_built_in) = (symbols.no_table.clone(), symbols.ctnetlink_built_in() == Some(true));
        let (half, maps) = KernelHalf::prepare(symbols, restrictions, options.log)?;
        // From the bucket there is no walk without the table's address, so then every insert is walked from its entry.
        let walk = if no_table.is_none() { options.walk } else { Walk::Every };
        let mut hooks = Self {
            signals: Vec::new(),
            walked: 0,
            reply_only: false,
            programs: Vec::new(),
            refused_flows: None,
            log: None,
            maps,
            cpus: slots::online(Path::new("/"))?,
            read: 0,
            namespaces: ByNamespace::default(),
            origin: Sum::default(),
            ctnetlink_built_in,
        };
        let mut errors = Vec::new();
        for signal in Signal::ALL.into_iter().filter(|signal| *signal != Signal::Chains) {
            let mut row = Attached { signal, back_end: None, why: Vec::new() };
            let wanted = |back_end: &BackEnd| options.back_end.is_none_or(|only| only == *back_end);
            for back_end in BackEnd::WITH_PROGRAMS.into_iter().filter(wanted) {
                match hooks.take(&half, signal, programs(signal, back_end, walk)) {
                    Ok(()) => {
                        row.back_end = Some(back_end);
                        if back_end == BackEnd::Kprobe && !half.tells_missed_hits {
                            row.why.push(format!("{}: {NOT_COUNTED}", back_end.name()));
                        }
                        break;
                    }
                    Err(error) => {
                        row.why.push(format!("{}: {error}", back_end.name()));
                        errors.push((signal, back_end, error));
                    }
                }
            }
            hooks.signals.push(row);
        }
        hooks.walked = match (hooks.back_end(Signal::Inserts), walk) {
            (Some(BackEnd::Tracing), Walk::Every) => 1,
            (Some(_), _) if no_table.is_none() => SAMPLED,
            _ => 0,
        };
        hooks.add_chains(options.walk, no_table.as_deref());
        if options.log {
            hooks.log = hooks.programs.iter().find_map(|attached| kernel_log::of(&attached.program));
        }
        let tells_calls = |back_end| back_end == BackEnd::Tracing || CALLS_ARE_KNOWN;
        hooks.reply_only = !restrictions.no_helper && hooks.back_end(Signal::Clashes).is_some_and(tells_calls);
        let found = restrictions.with(&errors);
        let none = hooks.signals.iter().all(|row| row.back_end.is_none());
        if none && found == restrictions {
            // The inserts' reasons, one for each back end, stand for all.
            return Err(Error::Nothing(hooks.signals.swap_remove(0).why.join("; ")));
        }
        Ok((hooks, found))
    }

    /// The chains' row: the programs that count the inserts measure them. `no_table`: why the table's address, where a
    /// sampled walk begins, is not known.
    fn add_chains(&mut self, wanted: Walk, no_table: Option<&str>) {
        let inserts = self.back_end(Signal::Inserts);
        let (back_end, why) = match (inserts, no_table) {
            (Some(back_end), Some(why)) if self.walked == 0 => (None, vec![format!("{}: {why}", back_end.name())]),
            (Some(back_end), Some(why)) if wanted == Walk::Sampled => {
                (inserts, vec![format!("{}: every insert is walked and not one in {SAMPLED}: {why}", back_end.name())])
            }
            (Some(_), _) => (inserts, Vec::new()),
            (None, _) => (None, vec!["inserts are not seen".to_owned()]),
        };
        let place = self.signals.len().min(1);
        self.signals.insert(place, Attached { signal: Signal::Chains, back_end, why });
    }

    /// Runs the self-test. What fails it is detached and off; what it cannot test stays on and says so.
    fn prove(&mut self, no_ctnetlink: Option<String>) {
        let tested = [Signal::Inserts, Signal::Destroys];
        if tested.iter().all(|signal| self.back_end(*signal).is_none()) {
            return;
        }
        for (signal, verdict) in selftest::run(&self.maps.slots, self.walked, no_ctnetlink) {
            match verdict {
                Verdict::Passed => {}
                Verdict::Failed(why) => self.turn_off(signal, &format!("the self-test failed: {why}")),
                Verdict::NotTested(why) => {
                    if let Some(row) =
                        self.signals.iter_mut().find(|row| row.signal == signal && row.back_end.is_some())
                    {
                        row.why.push(format!("not self-tested: {why}"));
                    }
                }
            }
        }
        self.origin = self.maps.slots.sum();
    }

    /// Detaches a signal's programs and says why. The chains go with the inserts.
    fn turn_off(&mut self, signal: Signal, reason: &str) {
        let and_chains =
            |row: &Attached| row.signal == signal || (signal, row.signal) == (Signal::Inserts, Signal::Chains);
        for row in self.signals.iter_mut().filter(|row| and_chains(row)) {
            if let Some(back_end) = row.back_end.take() {
                row.why.push(format!("{}: {reason}", back_end.name()));
            }
        }
        self.programs.retain(|attachment| attachment.signal != signal);
    }

    /// Loads and attaches all of these programs, or none.
    fn take(&mut self, half: &KernelHalf, signal: Signal, wanted: Vec<Program>) -> Result<(), Error> {
        if wanted.is_empty() {
            return Err(Error::NotByThis);
        }
        let load = |program: Program| half.load(&program).map(|loaded| (program, loaded));
        let programs = wanted.into_iter().map(load).collect::<Result<Vec<_>, _>>()?;
        let by_link = half.tells_missed_hits;
        let attach = |(program, loaded): &(Program, OwnedFd)| {
            let failed = |source| syscall(&format!("attaching to {}", program.function), source);
            program.attach(loaded.as_fd(), by_link).map_err(failed)
        };
        let links = programs.iter().map(attach).collect::<Result<Vec<_>, _>>()?;
        if signal == Signal::RefusedFlows {
            // That they can be attached is known now; they are when there is need.
            self.refused_flows = Some(OnDemand::new(programs));
            return Ok(());
        }
        let attached = programs.into_iter().zip(links);
        self.programs.extend(attached.map(|((program, loaded), link)| {
            let misses = match program.how {
                How::Tracing(_) => Misses::Program,
                How::Kprobe | How::Kretprobe if by_link => Misses::ProgramAndLink,
                How::Kprobe | How::Kretprobe => Misses::NotCounted,
            };
            Attachment { signal, program: loaded, link, misses }
        }));
        Ok(())
    }

    fn back_end(&self, signal: Signal) -> Option<BackEnd> {
        self.signals.iter().find(|row| row.signal == signal)?.back_end
    }

    /// Which back end each signal has.
    pub fn signals(&self) -> &[Attached] {
        &self.signals
    }

    /// What the programs counted since they were attached, and the resizes since the last reading.
    pub fn read(&mut self) -> HookTotals {
        let sum = self.maps.slots.sum().since(&self.origin);
        if sum.slot.strayed > 0 {
            self.turn_off(Signal::Chains, &selftest::strayed(sum.slot.strayed));
        }
        self.read = sum.inserts;
        self.namespaces.add(&sum);
        let on = |signal| self.back_end(signal).is_some();
        let mut totals = HookTotals {
            inserts: on(Signal::Inserts).then_some(sum.inserts),
            namespaces: on(Signal::Inserts).then(|| self.namespaces.told(sum.inserts)),
            chains: on(Signal::Chains).then(|| Chains {
                one_in: self.walked,
                original: sum.slot.chains[ORIGINAL].to_vec(),
                reply: sum.slot.chains[REPLY].to_vec(),
            }),
            destroys: on(Signal::Destroys).then(|| destroys(&sum.slot.destroys, sum.slot.reply_only_destroys)),
            table_full: on(Signal::TableFull)
                .then_some(TableFull { refused: sum.slot.table_full, made_room: sum.slot.early_drops }),
            clashes: on(Signal::Clashes).then(|| Clashes {
                lost: sum.slot.clashes_lost,
                resolved: sum.slot.clashes_resolved,
                reply_only: self.reply_only.then_some(sum.slot.reply_only_inserts),
            }),
            strayed: sum.slot.strayed,
            missed: self.missed(),
            resizes: Vec::new(),
            refused: Vec::new(),
        };
        while let Some(event) = self.maps.events.next() {
            totals.resizes.extend(events::resize(&event));
            totals.refused.extend(events::refused(&event));
        }
        if let Some(log) = &mut self.log {
            log.flush();
        }
        if let (Some(on_demand), Some(full)) = (&mut self.refused_flows, totals.table_full) {
            on_demand.watch(full.refused, since_boot());
        }
        totals
    }

    /// Entries inserted since the last reading.
    pub fn inserts_since_reading(&self) -> u64 {
        self.maps.slots.sum().since(&self.origin).inserts.saturating_sub(self.read)
    }

    /// How many CPUs take new flows; `None`: their inserts are not seen, so no credit is counted down.
    pub fn counting_cpus(&self) -> Option<u64> {
        self.back_end(Signal::Inserts).map(|_| self.cpus)
    }

    /// The credit of the CPUs.
    pub fn credit(&mut self) -> &mut Credit {
        &mut self.maps.credit
    }

    /// Runs that the kernel skipped; `None` where it does not count those of each program.
    fn missed(&self) -> Option<u64> {
        self.programs.iter().map(Attachment::missed).sum()
    }
}

impl Attachment {
    fn missed(&self) -> Option<u64> {
        let of_program = || sys::skipped_runs(&self.program).ok();
        match self.misses {
            Misses::NotCounted => None,
            Misses::Program => of_program(),
            Misses::ProgramAndLink => Some(of_program()?.saturating_add(sys::missed_hits(&self.link).ok()?)),
        }
    }
}

impl Restrictions {
    /// With what these refusals tell.
    fn with(self, refusals: &[(Signal, BackEnd, Error)]) -> Self {
        let any = |told: fn(&(Signal, BackEnd, Error)) -> bool| refusals.iter().any(told);
        Self {
            no_helper: self.no_helper || any(|(.., error)| matches!(error, Error::NoHelper)),
            // Verifiers of older kernels refuse the load of the TCP state through its union.
            no_unions: self.no_unions
                || any(|refusal| matches!(refusal, (Signal::Destroys, BackEnd::Tracing, Error::Verifier { .. }))),
        }
    }
}

fn destroys(fates: &[u64; FATES], reply_only: u64) -> Destroys {
    let pair = |place: usize| [fates[place], fates[place + 1]];
    Destroys {
        tcp: std::array::from_fn::<_, TCP_STATES, _>(|state| pair(2 * state)),
        udp: pair(UDP_FATE),
        icmp: pair(ICMP_FATE),
        other: pair(OTHER_FATE),
        reply_only,
    }
}
