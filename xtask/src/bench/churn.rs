//! `cargo xtask bench churn`: the same load against everything an operator would run, in a guest or on this host.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use crate::build::Programs;
use crate::{build, process, setup, tree, vm};

/// How many times longer than on an idle machine it may take. The guest's clock counts instructions, so its figures do not
/// depend on what else runs here, but its end does.
const BUSY: u32 = 12;
const BOOT: Duration = Duration::from_mins(3);
/// The smallest guest, and what the scale's own memory is beside: kernel, programs, the load's sockets.
const LEAST_MIB: u32 = 1024;
/// Files of an earlier run that must not pass for this one's, and the plots, each as SVG and as PNG.
const RESULTS: [&str; 4] = ["report.json", "report.md", "sizes.json", "sizes.md"];
const PLOTS: [&str; 4] = ["table", "drops", "latency", "sizes"];

/// What the user asks for.
#[derive(clap::Args)]
pub struct Arguments {
    /// A scenario that comes with the bench, or a file; docs/bench.md has every key
    #[arg(long, value_name = "NAME|FILE", default_value = "burst")]
    scenario: String,
    /// Alternatives, with commas between: ample (the yardstick), stock, static, static-ceiling, kube-proxy (kube-proxy-1.N
    /// for an older version), cron, bpftune, guard, guard-advise [default: all]
    #[arg(long, value_name = "LIST")]
    against: Option<String>,
    /// How often each alternative runs; the order is rotated. After these each runs once more, beside a guard that only
    /// counts what no file of the kernel's tells
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Entries of the stock table; every other size follows at the same scale
    #[arg(long, value_name = "ENTRIES", default_value_t = 8_192)]
    table: u64,
    /// Instead of one table: so many entries before the load, with commas between, and what a connection costs with each.
    /// Without --against: stock, static-ceiling, guard
    #[arg(long, value_name = "LIST", conflicts_with = "table", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=1_390_000))]
    sizes: Vec<u64>,
    /// Kernel to boot
    #[arg(long, value_enum, default_value = "6.12", value_name = "SERIES")]
    kernel: setup::Series,
    /// Where the report and the plots go [default: target/vm/out/churn]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the report as JSON instead of a table
    #[arg(long)]
    json: bool,
    /// On this host itself and not in a guest, with its own clock: tells everything that it does to it, and asks
    ///
    /// Installs nothing: what is missing is named with its Debian package. All is put back at the end, after Ctrl-C, and
    /// after a kill by the next run.
    #[arg(long, conflicts_with = "kernel")]
    here: bool,
    /// The answer to what --here asks
    #[arg(long, requires = "here")]
    yes: bool,
}

/// Sets up, builds, boots, and passes the bench's output and exit code through.
pub fn run(arguments: &Arguments) -> Result<u8> {
    let programs = build::release_with_png()?;
    // Wrong names and files are told before anything boots; the answer is how long it lasts, and what it needs.
    let check = Command::new(&programs.bench)
        .arg("contest")
        .args(words(arguments)?)
        .args(["--out", vm::OUT, "--check"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", programs.bench.display()))?;
    if !check.status.success() {
        return Ok(check.status.code().and_then(|code| code.try_into().ok()).unwrap_or(1));
    }
    let answer = String::from_utf8_lossy(&check.stdout);
    let (seconds, tools) = answer.split_once('\n').context("the bench told no time")?;
    let lasts = Duration::from_secs(seconds.parse().context("the bench told no time")?);
    if !arguments.here {
        let mut pieces = setup::for_guest_programs();
        if tools.lines().any(|program| setup::BALANCERS.has(program)) {
            pieces.extend(setup::for_balancers());
        }
        pieces.extend(setup::for_guest(arguments.kernel));
        setup::ensure(&pieces, setup::Say::Fetched)?;
    }
    let all = arguments.sizes.is_empty();
    if arguments.against.as_ref().map_or(all, |against| against.split(',').any(|name| name.trim() == "bpftune"))
        && let Err(error) = setup::ensure(&setup::for_bpftune(), setup::Say::Fetched)
    {
        // The others can do without; the report names it.
        eprintln!("xtask: {error:#}");
    }
    let out = match &arguments.out {
        Some(out) => absolute(out)?,
        None => tree::kept().join("vm/out/churn"),
    };
    let (start, began) = (Instant::now(), SystemTime::now());
    let code = if arguments.here {
        // It asks first: after a no an earlier report must still be there.
        here(arguments, &programs, &out)?
    } else {
        remove_old(arguments, &out)?;
        boot(arguments, &programs, &out, lasts)?
    };
    let seconds = start.elapsed().as_secs();
    let is_new = |report: PathBuf| {
        let written = fs::metadata(report).and_then(|metadata| metadata.modified());
        // The guest's clock is its own, and nothing old is left there.
        written.is_ok_and(|written| !arguments.here || written >= began)
    };
    if !results(arguments, &out).any(is_new) {
        eprintln!("the bench ended with {code} after {seconds} s and made no report");
        return Ok(code);
    }
    eprintln!("the bench ended with {code} after {seconds} s; its report: {}", out.display());
    draw(&programs.bench, arguments, &out)?;
    Ok(code)
}

/// Where a report may be: with several sizes in a folder each, and what compares them.
fn results<'a>(arguments: &'a Arguments, out: &'a Path) -> impl Iterator<Item = PathBuf> + 'a {
    folders(arguments, out).flat_map(|folder| RESULTS.map(|name| folder.join(name)))
}

fn folders<'a>(arguments: &'a Arguments, out: &'a Path) -> impl Iterator<Item = PathBuf> + 'a {
    arguments.sizes.iter().map(|size| out.join(size.to_string())).chain([out.to_path_buf()])
}

fn remove_old(arguments: &Arguments, out: &Path) -> Result<()> {
    for old in results(arguments, out).chain(plots(arguments, out, "svg")).chain(plots(arguments, out, "png")) {
        match fs::remove_file(&old) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", old.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The bench's command, whose results go to `out` as it sees it.
fn contest(arguments: &Arguments, programs: &Programs, out: &Path) -> Result<Vec<OsString>> {
    let mut command: Vec<OsString> = vec![programs.bench.clone().into(), "contest".into()];
    command.extend(words(arguments)?);
    command.extend(["--out".into(), out.into(), "--bpftune".into(), setup::bpftune_root().into()]);
    let switches = [("--json", arguments.json), ("--here", arguments.here), ("--yes", arguments.yes)];
    command.extend(switches.into_iter().filter(|(_, given)| *given).map(|(switch, _)| switch.into()));
    Ok(command)
}

/// It asks and refuses by itself. Ctrl-C is for it alone: it puts everything back, and is waited for.
fn here(arguments: &Arguments, programs: &Programs, out: &Path) -> Result<u8> {
    process::leave_interrupts_to_children();
    let command = contest(arguments, programs, out)?;
    let status = Command::new(&command[0]).args(&command[1..]).status();
    let status = status.with_context(|| format!("cannot start {}", programs.bench.display()))?;
    Ok(status.code().and_then(|code| code.try_into().ok()).unwrap_or(1))
}

fn boot(arguments: &Arguments, programs: &Programs, out: &Path, lasts: Duration) -> Result<u8> {
    // The stock table of a size is up to three times as large.
    let table = arguments.sizes.iter().map(|size| size.saturating_mul(3)).max().unwrap_or(arguments.table);
    let mem_mib = LEAST_MIB.max(u32::try_from(table >> 8).unwrap_or(u32::MAX));
    eprintln!(
        "booting a guest: Linux {}, one CPU whose clock counts instructions, {mem_mib} MiB; {} s of the guest's time",
        arguments.kernel.name(),
        lasts.as_secs()
    );
    vm::run(&vm::Guest {
        kernel: arguments.kernel,
        cpus: 1,
        mem_mib,
        count_instructions: true,
        timeout: lasts * BUSY + BOOT,
        out: out.to_path_buf(),
        command: contest(arguments, programs, Path::new(vm::OUT))?,
    })
}

/// The plots as PNG too, here: a guest need not have fonts, and takes a hundred times as long.
fn draw(bench: &Path, arguments: &Arguments, out: &Path) -> Result<()> {
    let svg: Vec<PathBuf> = plots(arguments, out, "svg").into_iter().filter(|plot| plot.is_file()).collect();
    if svg.is_empty() {
        return Ok(());
    }
    process::show(Command::new(bench).arg("png").args(svg)).context("the plots are there as SVG alone")
}

/// Where they may be.
fn plots(arguments: &Arguments, out: &Path, extension: &str) -> Vec<PathBuf> {
    folders(arguments, out).flat_map(|folder| PLOTS.map(|name| folder.join(name).with_extension(extension))).collect()
}

/// What the bench is asked for, both before and in the guest.
fn words(arguments: &Arguments) -> Result<Vec<OsString>> {
    let scenario = Path::new(&arguments.scenario);
    // The guest starts elsewhere.
    let scenario = if scenario.is_file() { absolute(scenario)?.into() } else { arguments.scenario.clone().into() };
    let rounds = arguments.rounds.to_string();
    let mut words: Vec<OsString> = vec!["--scenario".into(), scenario, "--rounds".into(), rounds.into()];
    if arguments.sizes.is_empty() {
        words.extend(["--table".into(), arguments.table.to_string().into()]);
    } else {
        let sizes: Vec<String> = arguments.sizes.iter().map(ToString::to_string).collect();
        words.extend(["--sizes".into(), sizes.join(",").into()]);
    }
    if let Some(against) = &arguments.against {
        words.extend(["--against".into(), against.into()]);
    }
    Ok(words)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    Ok(env::current_dir().context("the folder this was started in")?.join(path))
}

/// `cargo xtask bench compare`: on this machine, since nothing is measured.
pub fn compare(before: &Path, after: &Path, tolerance: u32) -> Result<u8> {
    process::show(process::cargo().args(["build", "--quiet", "--package", "conntrack-guard-bench", "--bins"]))?;
    let bench = tree::built().join("debug/conntrack-guard-bench");
    let status = Command::new(&bench)
        .arg("compare")
        .args([before, after])
        .args(["--tolerance", &tolerance.to_string()])
        .status()
        .with_context(|| format!("cannot start {}", bench.display()))?;
    Ok(status.code().and_then(|code| code.try_into().ok()).unwrap_or(1))
}
