//! The log, on standard error.

use std::io::{self, IsTerminal as _};

use clap::ValueEnum;
use tracing::Level;
use tracing_subscriber::fmt::SubscriberBuilder;

/// `--log-format`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object a line, with a time stamp always.
    Json,
}

/// Starts logging. Colours are for terminals only; the journal has a time of its own.
pub fn start(format: Format, verbose: bool) {
    // Failing to log must stop nothing, so the library is not to complain on the very stream that failed.
    let log = SubscriberBuilder::default().with_writer(io::stderr).with_target(false).log_internal_errors(false);
    let log = log.with_max_level(if verbose { Level::DEBUG } else { Level::INFO });
    match format {
        Format::Json => log.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
        Format::Text if std::env::var_os("JOURNAL_STREAM").is_some() => log.with_ansi(false).without_time().init(),
        Format::Text => log.with_ansi(io::stderr().is_terminal()).init(),
    }
}
