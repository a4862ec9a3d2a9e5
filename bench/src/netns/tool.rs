//! Runs `ip`, `nft` and the like. Most take a script on their standard input: one process for many lines, since starting a
//! program in an emulated guest takes longer than what it then does.

use std::io::{self, ErrorKind, Write};
use std::process::{Command, Stdio};

use super::haproxy::HAPROXY;
use super::{Error, Kind};

/// A program that has to be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Its name in `PATH`.
    pub program: &'static str,
    /// The Debian package that has it.
    pub package: &'static str,
}

impl Tool {
    /// What to say where it could not be started because it is not there.
    pub(crate) fn missing(self, error: &io::Error) -> Option<Error> {
        let Self { program, package } = self;
        (error.kind() == ErrorKind::NotFound).then_some(Error::NoTool { program, package })
    }
}

const IP: Tool = Tool { program: "ip", package: "iproute2" };
const NFT: Tool = Tool { program: "nft", package: "nftables" };
const IPVSADM: Tool = Tool { program: "ipvsadm", package: "ipvsadm" };
const MODPROBE: Tool = Tool { program: "modprobe", package: "kmod" };
const RMMOD: Tool = Tool { program: "rmmod", package: "kmod" };

impl Kind {
    /// What a topology of this kind is made with.
    pub fn tools(self) -> Vec<Tool> {
        let mut tools = vec![IP, NFT];
        match self {
            Self::Gateway { .. } | Self::Host => {}
            Self::Haproxy => tools.push(HAPROXY),
            Self::Ipvs { .. } => tools.extend([IPVSADM, MODPROBE, RMMOD]),
        }
        tools
    }
}

/// Runs `ip ARGUMENTS -batch -` over the lines of `script`.
pub(super) fn ip_batch(arguments: &[&str], script: &str) -> Result<(), Error> {
    let mut all = arguments.to_vec();
    all.extend(["-batch", "-"]);
    run(IP, &all, script)
}

/// Runs `ip ARGUMENTS`.
pub(super) fn ip(arguments: &[&str]) -> Result<(), Error> {
    run(IP, arguments, "")
}

/// Runs `nft -f -` over `script`.
pub(super) fn nft(script: &str) -> Result<(), Error> {
    run(NFT, &["-f", "-"], script)
}

/// Runs `ipvsadm -R` over `script`, which adds to what is there.
pub(super) fn ipvsadm(script: &str) -> Result<(), Error> {
    run(IPVSADM, &["-R"], script)
}

/// Runs `modprobe ARGUMENTS`.
pub(super) fn modprobe(arguments: &[&str]) -> Result<(), Error> {
    run(MODPROBE, arguments, "")
}

/// Runs `rmmod MODULES`, and no `modprobe -r`: that would take along whatever nobody uses at the moment.
pub(super) fn rmmod(modules: &[&str]) -> Result<(), Error> {
    run(RMMOD, modules, "")
}

fn run(tool: Tool, arguments: &[&str], input: &str) -> Result<(), Error> {
    let program = tool.program;
    let command = format!("{program} {}", arguments.join(" "));
    let failed = |output: String| Error::Tool { command: command.clone(), output };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| tool.missing(&error).unwrap_or_else(|| failed(error.to_string())))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that stopped reading has said why on its standard error; the exit status tells.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.contains("Operation not permitted") || said.contains("Permission denied") {
        return Err(Error::NotPermitted { what: format!("{command}: {said}") });
    }
    Err(failed(if said.is_empty() { output.status.to_string() } else { said }))
}
