//! The kernel half's rare debug lines, by aya-log, handed on to `tracing`.

use std::os::fd::OwnedFd;

use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

use super::sys;

/// Reads the lines that the programs wrote.
pub type KernelLog = EbpfLogger<ToTracing>;

/// The log of a program; `None` if it writes none.
pub fn of(program: &OwnedFd) -> Option<KernelLog> {
    EbpfLogger::init_from_id_with_logger(sys::program_id(program).ok()?, ToTracing).ok()
}

/// aya-log speaks to the crate `log`, the daemon's log is `tracing`'s.
pub struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        tracing::enabled!(tracing::Level::DEBUG)
    }

    fn log(&self, record: &Record<'_>) {
        tracing::debug!("kernel: {}", record.args());
    }

    fn flush(&self) {}
}
