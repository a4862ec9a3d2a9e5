//! The commands that answer and end; `run` is in `daemon`.

mod recorded;

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, anyhow};

use crate::actuate::{Access, AccessError, Found, Journal, STATE_DIR, Settings, find_journal, restore};
use crate::cli::{CheckArgs, Failure, PauseArgs, RestoreArgs, ResumeArgs, StatusArgs, SupportArgs};
use crate::config::Policy;
use crate::observe::table;
use crate::policy::Setting;
use crate::report::{self, Answer, ClientError, Order};
use crate::ui::{self, StatusScreen, SupportScreen, unguarded};
use crate::{config, kernel};

pub use recorded::{advise, replay};

const ROOT: &str = "/";
/// There while the module is loaded, or where it is built in.
const MODULE: &str = "sys/module/nf_conntrack";

/// `status`
pub fn status(args: &StatusArgs) -> Result<(), Failure> {
    match report::ask(report::socket()) {
        Ok(answer) if args.json => print_json(&answer),
        Ok(Answer::Status(status)) => print(&StatusScreen(&status).to_string()),
        Ok(Answer::Waiting(guard)) => print(&format!(
            "conntrack-guard {} waits for nf_conntrack (process {}): {}\n",
            guard.guard, guard.pid, guard.waiting
        )),
        Err(error) => {
            // Whatever is wrong with the guard, the table is what the question was about.
            if let Ok(table) = table::read(Path::new(ROOT))
                && !args.json
            {
                print(&unguarded(&table))?;
            }
            Err(unanswered(error))
        }
    }
}

fn unanswered(error: ClientError) -> Failure {
    match error {
        ClientError::NotPermitted => Failure::not_possible(error),
        _ => Failure::failed(error),
    }
}

/// `pause`
pub fn pause(args: &PauseArgs) -> Result<(), Failure> {
    let for_ms = u64::try_from(args.length.as_millis()).unwrap_or(u64::MAX);
    // Under sudo every caller is root.
    let by = ["SUDO_USER", "LOGNAME", "USER"].iter().find_map(|name| std::env::var(name).ok());
    order(&Order::Pause { settings: these(args.setting), for_ms, by })
}

/// `resume`
pub fn resume(args: &ResumeArgs) -> Result<(), Failure> {
    order(&Order::Resume { settings: these(args.setting) })
}

fn these(setting: Option<Setting>) -> Vec<Setting> {
    setting.map_or_else(|| Setting::all().collect(), |setting| vec![setting])
}

fn order(order: &Order) -> Result<(), Failure> {
    let said = report::order(report::socket(), order).map_err(unanswered)?;
    print(&format!("{said}\n"))
}

/// `check`
pub fn check(args: &CheckArgs) -> Result<(), Failure> {
    let Some(file) = &args.file else { return print(&config::example(&Policy::default())) };
    let policy = config::load(file)?;
    for warning in config::warnings(&policy) {
        print(&format!("warning: {warning}\n"))?;
    }
    print(&format!("{} is valid\n", file.display()))
}

/// `support`
pub fn support(args: &SupportArgs) -> Result<(), Failure> {
    let support =
        kernel::support::probe(Path::new(ROOT), kernel::Options { back_end: args.backend, ..Default::default() });
    if args.json { print_json(&support) } else { print(&SupportScreen(&support).to_string()) }
}

/// `restore`
pub fn restore_settings(args: &RestoreArgs) -> Result<(), Failure> {
    let root = Path::new(ROOT);
    // A running guard would change again what is put back here.
    let _access = match Access::take(root) {
        // Where the module is, but not its settings, they are another namespace's.
        Err(AccessError::NoConntrack(_)) if !root.join(MODULE).exists() => {
            return print("nothing to put back: nf_conntrack is not loaded, and its settings went with it\n");
        }
        access => access?,
    };
    let settings = Settings::new(root);
    let state_dir = &args.state_dir;
    let mut journal = match find_journal(state_dir, &settings).context("nothing is changed")? {
        Found::Nothing if state_dir != Path::new(STATE_DIR) && !state_dir.exists() => {
            // By default no guard may have run here; a folder that was named was there.
            let missing = anyhow!("there is no {}", state_dir.display());
            Err(missing.context("nothing is put back: name the guard's own --state-dir"))?
        }
        Found::Nothing => {
            return print(&format!("nothing to put back: {} holds no journal\n", state_dir.display()));
        }
        Found::EarlierBoot => {
            Journal::remove(state_dir).context("the journal of an earlier boot is of no use any more")?;
            return print("nothing to put back: the journal was of an earlier boot; it is removed\n");
        }
        Found::ThisBoot(journal) => journal,
    };
    // By hand nobody waits, and nothing is to be dropped.
    let all = restore(&mut journal, &settings, config::Restore::WhenSafe);
    if all.is_empty() {
        return print("nothing to put back: the guard that kept this journal had changed nothing\n");
    }
    for one in &all {
        print(&(report::restored_line(one) + "\n"))?;
    }
    Ok(report::all_back(&all, state_dir)?)
}

/// Something to know beside the answer.
fn tell(text: &str) {
    // With standard error gone there is nobody left to tell.
    let _ = writeln!(io::stderr(), "conntrack-guard: {text}");
}

fn print(text: &str) -> Result<(), Failure> {
    Ok(ui::print(text).context("cannot write to standard output")?)
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).context("cannot write JSON")?;
    print(&(text + "\n"))
}
