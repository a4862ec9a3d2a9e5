//! Programs that have to be installed on the machine itself, because other programs look for them in `PATH`.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{NotPossible, Piece, logs};
use crate::process;

/// A program and the Debian package that brings it.
struct Tool {
    program: &'static str,
    package: &'static str,
}

/// Programs that belong together, installed in one step.
pub struct Tools {
    name: &'static str,
    tools: &'static [Tool],
}

/// The emulator, and the module tools: Debian's kernel package leaves running depmod to the installation, and the
/// guest's own kernel calls modprobe.
pub const QEMU: Tools = Tools {
    name: "QEMU and module tools",
    tools: &[
        Tool { program: "qemu-system-x86_64", package: "qemu-system-x86" },
        Tool { program: "depmod", package: "kmod" },
    ],
};

/// Called by tests, bench and demo inside guests.
pub const GUEST_TOOLS: Tools = Tools {
    name: "network tools",
    tools: &[
        Tool { program: "ip", package: "iproute2" },
        Tool { program: "nft", package: "nftables" },
        Tool { program: "conntrack", package: "conntrack" },
    ],
};

/// What gateways balance with, and what others load them with.
pub const BALANCERS: Tools = Tools {
    name: "balancers",
    tools: &[
        Tool { program: "ipvsadm", package: "ipvsadm" },
        Tool { program: "haproxy", package: "haproxy" },
        Tool { program: "wrk", package: "wrk" },
    ],
};

/// What the guard's price is compared with; nothing else needs it.
pub const BENCH_TOOLS: Tools =
    Tools { name: "tracing tool", tools: &[Tool { program: "bpftrace", package: "bpftrace" }] };

/// Called by the checks of `deploy/`.
pub const DEPLOY_TOOLS: Tools = Tools {
    name: "deployment tools",
    tools: &[Tool { program: "systemd-analyze", package: "systemd" }, Tool { program: "python3", package: "python3" }],
};

/// Builds the container image, without an engine.
pub const IMAGE_TOOLS: Tools =
    Tools { name: "image builder", tools: &[Tool { program: "buildah", package: "buildah" }] };

impl Tools {
    /// Whether the program is one of these.
    pub fn has(&self, program: &str) -> bool {
        self.tools.iter().any(|tool| tool.program == program)
    }

    fn missing(&self) -> impl Iterator<Item = &'static Tool> {
        self.tools.iter().filter(|tool| process::find_program(tool.program).is_none())
    }
}

impl Piece for Tools {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn found(&self) -> Option<String> {
        let programs: Vec<&str> = self.tools.iter().map(|tool| tool.program).collect();
        self.missing().next().is_none().then(|| programs.join(", "))
    }

    fn packages(&self) -> Vec<&'static str> {
        self.missing().map(|tool| tool.package).collect()
    }

    fn work(&self) -> &'static str {
        "looking"
    }

    /// The packages are installed by now.
    fn get(&self) -> Result<String> {
        let absent = self.missing().map(|tool| format!("{} brought no {}", tool.package, tool.program));
        bail!("{}", absent.collect::<Vec<_>>().join("; "))
    }
}

/// Installs Debian packages with the machine's own apt configuration.
pub fn install(packages: &[&str]) -> Result<String> {
    let list = packages.join(" ");
    let by_hand = format!("    apt-get update\n    apt-get install --yes --no-install-recommends {list}");
    if !nix::unistd::geteuid().is_root() {
        return Err(NotPossible(format!("only root can install packages; run as root:\n{by_hand}")).into());
    }
    if process::find_program("apt-get").is_none() {
        return Err(NotPossible(format!("this machine has no apt-get; on Debian the commands are:\n{by_hand}")).into());
    }
    let apt = |words: &[&str], log: &str| {
        process::run_logged(
            // Another apt may be at work, as on a machine that updates itself.
            Command::new("apt-get")
                .args(["--quiet", "-o", "DPkg::Lock::Timeout=300"])
                .args(words)
                .env("DEBIAN_FRONTEND", "noninteractive"),
            &logs(log),
        )
    };
    apt(&["update"], "apt-update")?;
    let mut words = vec!["install", "--yes", "--no-install-recommends"];
    words.extend(packages);
    apt(&words, "apt-install").with_context(|| format!("cannot install {list}"))?;
    Ok("by apt-get".to_owned())
}
