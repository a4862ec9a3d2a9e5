//! The advice as files that work as they are.

use std::fmt::Write as _;

use clap::ValueEnum;

use super::Advice;
use crate::figures::grouped;

/// kube-proxy 1.36 and later set no higher max than this, whatever the configuration asks for.
const KUBE_PROXY_CAP: u64 = 1_048_576;

/// For whom a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Emit {
    /// For /etc/sysctl.d
    Sysctl,
    /// For /etc/modprobe.d: the buckets from the moment the module is loaded
    Modprobe,
    /// For /etc/modules-load.d: loads the module before sysctls are set
    ModulesLoad,
    /// The conntrack section of a KubeProxyConfiguration
    KubeProxy,
}

impl Advice {
    /// The whole file.
    pub fn file(&self, emit: Emit) -> String {
        let mut text =
            format!("# Advice of conntrack-guard from {}: at most {} entries.\n", self.basis(), grouped(self.entries));
        // Writing to a String cannot fail.
        let _ = match emit {
            Emit::Sysctl => self.sysctl(&mut text),
            Emit::Modprobe => write!(
                text,
                "# Goes with a sysctl file: without one, a table loaded so has a max of 8 x hashsize.\n\
                 options nf_conntrack hashsize={}\n",
                self.buckets.advised
            ),
            Emit::ModulesLoad => write!(
                text,
                "# Before sysctls are set at boot, which is too early for a module that loads by itself.\nnf_conntrack\n"
            ),
            Emit::KubeProxy => self.kube_proxy(&mut text),
        };
        text
    }

    fn sysctl(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "# {}", self.formula())?;
        writeln!(text, "# nf_conntrack must be loaded before: see modules-load.")?;
        writeln!(text, "net.netfilter.nf_conntrack_buckets = {}", self.buckets.advised)?;
        writeln!(text, "net.netfilter.nf_conntrack_max = {}", self.max.advised)?;
        for (timeout, advised) in &self.timeouts {
            writeln!(text, "net.netfilter.{} = {}", timeout.sysctl(), advised.advised)?;
        }
        Ok(())
    }

    /// kube-proxy sets max to the larger of maxPerCore times the CPUs and min: with 1 a core, min is what counts.
    fn kube_proxy(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "# max is the larger of maxPerCore times the CPUs and min.")?;
        if self.max.advised > KUBE_PROXY_CAP {
            writeln!(
                text,
                "# From 1.36 on kube-proxy sets no more than {}: use maxPerCore: 0 there, which leaves max alone, and a \
                 sysctl file.",
                grouped(KUBE_PROXY_CAP)
            )?;
        }
        write!(
            text,
            "conntrack:\n  maxPerCore: 1\n  min: {}\n  # 0s leaves the timeouts alone.\n  tcpEstablishedTimeout: 0s\n  \
             tcpCloseWaitTimeout: 0s\n",
            self.max.advised
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::super::Advised;
    use super::*;
    use crate::observe::Timeout;

    fn advice(max: u64) -> Advice {
        let advised = |found, advised| Advised { found, advised, why: "because".into() };
        Advice {
            observed: Duration::from_mins(1),
            samples: 60,
            entries: 40_000,
            max: advised(8_192, max),
            buckets: advised(8_192, 62_976),
            timeouts: BTreeMap::from([(Timeout::TcpTimeWait, advised(120, 30))]),
            entry_bytes: 384,
            memory: max * 384 + 62_976 * 8,
            memory_total: 4 << 30,
        }
    }

    /// The lines that a program reads.
    fn effective(text: &str) -> Vec<&str> {
        text.lines().filter(|line| !line.trim_start().starts_with('#')).collect()
    }

    #[test]
    fn each_file_says_what_its_reader_takes() {
        let advice = advice(65_536);
        assert_eq!(
            effective(&advice.file(Emit::Sysctl)),
            [
                "net.netfilter.nf_conntrack_buckets = 62976",
                "net.netfilter.nf_conntrack_max = 65536",
                "net.netfilter.nf_conntrack_tcp_timeout_time_wait = 30"
            ]
        );
        assert_eq!(effective(&advice.file(Emit::Modprobe)), ["options nf_conntrack hashsize=62976"]);
        assert_eq!(effective(&advice.file(Emit::ModulesLoad)), ["nf_conntrack"]);
        let kube_proxy = advice.file(Emit::KubeProxy);
        assert_eq!(effective(&kube_proxy)[..3], ["conntrack:", "  maxPerCore: 1", "  min: 65536"]);
        assert!(!kube_proxy.contains("1.36"));
    }

    #[test]
    fn what_kube_proxy_would_not_set_is_told() {
        assert!(advice(2_000_000).file(Emit::KubeProxy).contains("no more than 1,048,576"));
    }
}
