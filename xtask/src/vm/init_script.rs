//! The two scripts a guest runs as process 1. `first` runs from the initramfs, puts this machine's root in place and
//! hands over to `second`, which completes the system, runs the command, and ends its streams with a mark.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Where a guest finds its busybox, its second script and the pipes of its command.
const HOME: &str = "/run/guest";

/// Where a guest finds the writable folder.
pub const OUT: &str = "/out";

/// What the second script needs to know.
pub struct Session<'a> {
    pub release: &'a str,
    /// The modules folder, as seen on this machine.
    pub modules: &'a OsStr,
    /// Where the command starts.
    pub cwd: &'a OsStr,
    pub env: &'a [(String, Vec<u8>)],
    pub command: &'a [Vec<u8>],
    /// The number in the end mark.
    pub mark: &'a str,
}

/// The script of the initramfs: `modules` are the names of files in its `/modules`, in the order to load them.
pub fn first(modules: &[String], fresh_run: bool) -> Vec<u8> {
    let load = modules.iter().map(|name| format!("insmod /modules/{name} || die insmod {name}\n"));
    let load = load.collect::<Vec<_>>().concat();
    let run = if fresh_run { "mount -t tmpfs -o mode=755 run /new/run || die mount /run\n" } else { "" };
    format!(
        "#!/bin/busybox sh\n\
         die() {{ echo \"guest: $* failed\"; poweroff -f; }}\n\
         /bin/busybox --install -s /bin\n\
         mount -t proc proc /proc && mount -t devtmpfs dev /dev || die mount /proc or /dev\n\
         {load}\
         mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 root /lower || die mount the root\n\
         mount -t tmpfs -o size=75% rw /rw && mkdir /rw/upper /rw/work || die mount the upper layer\n\
         mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work root /new || die mount the overlay\n\
         {run}\
         mkdir -p /new{HOME} && cp /bin/busybox /second /new{HOME}/ || die copy\n\
         mkdir -p /new/proc /new/dev && mount --move /proc /new/proc && mount --move /dev /new/dev || die move\n\
         exec switch_root /new {HOME}/busybox sh {HOME}/second\n"
    )
    .into_bytes()
}

/// The script that runs in this machine's root.
pub fn second(session: &Session<'_>) -> Vec<u8> {
    let Session { release, mark, .. } = session;
    // Debian's busybox takes its own applet for a bare name: what must be the machine's own program has its full path.
    let mut script = format!(
        "B={HOME}/busybox\n\
         die() {{ echo \"guest: $* failed\"; $B poweroff -f; }}\n\
         need() {{ $B mkdir -p \"$4\"; $B mount -t \"$1\" -o \"$2\" \"$3\" \"$4\" || die mount \"$4\"; }}\n\
         need sysfs rw sys /sys\n\
         need devpts mode=620,ptmxmode=666 pts /dev/pts\n\
         need tmpfs mode=1777 shm /dev/shm\n\
         need cgroup2 rw cgroup2 /sys/fs/cgroup\n\
         need bpf mode=700 bpf /sys/fs/bpf\n\
         need debugfs rw debugfs /sys/kernel/debug\n\
         need tracefs rw tracefs /sys/kernel/tracing\n\
         need 9p trans=virtio,version=9p2000.L,msize=512000 out {OUT}\n\
         for n in fd:/proc/self/fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do $B ln -sf ${{n#*:}} /dev/${{n%%:*}}; done\n\
         $B hostname guest\n\
         $B ip link set lo up || die ip link set lo up\n\
         ulimit -n 1048576 || die ulimit\n\
         $B mkdir -p /lib/modules/{release}\n",
    )
    .into_bytes();
    script.extend_from_slice(b"$B mount -o bind ");
    script.extend(quoted(session.modules.as_bytes()));
    script.extend_from_slice(format!(" /lib/modules/{release} || die mount the modules\n").as_bytes());
    script.extend_from_slice(
        format!(
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
             /sbin/modprobe nf_conntrack || die modprobe nf_conntrack\n\
             $B mkfifo {HOME}/1 {HOME}/2 || die mkfifo\n\
             for p in 1 2; do\n\
             t=0; until [ -c /dev/vport0p$p ]; do t=$((t+1)); [ $t -lt 500 ] || die port $p; $B usleep 20000; done\n\
             done\n\
             $B cat {HOME}/1 >/dev/vport0p1 & c1=$!\n\
             $B cat {HOME}/2 >/dev/vport0p2 & c2=$!\n\
             ( exec </dev/null >{HOME}/1 2>{HOME}/2\n\
             cd ",
        )
        .as_bytes(),
    );
    script.extend(quoted(session.cwd.as_bytes()));
    script.extend_from_slice(b" || exit 126\nexec /usr/bin/setsid /usr/bin/env -i");
    for (name, value) in session.env {
        script.push(b' ');
        script.extend(quoted(&[name.as_bytes(), b"=", value].concat()));
    }
    for word in session.command {
        script.push(b' ');
        script.extend(quoted(word));
    }
    // Daemons that the command left would keep the pipes open for ever.
    script.extend_from_slice(
        format!(
            "\n) & wait $!\ncode=$?\n\
             for p in /proc/[0-9]*; do p=${{p#/proc/}}\n\
             case $p in 1|$c1|$c2) ;; *) kill -9 $p;; esac; done 2>/dev/null\n\
             wait $c1 $c2\n\
             $B sync\n\
             for p in 2 1; do $B printf '\\000guest-end {mark} %d\\n' $code >/dev/vport0p$p; done\n\
             $B sleep 60\n\
             $B poweroff -f\n"
        )
        .as_bytes(),
    );
    script
}

/// One word for the shell, whatever bytes it holds.
fn quoted(word: &[u8]) -> Vec<u8> {
    let mut out = vec![b'\''];
    for byte in word {
        match byte {
            b'\'' => out.extend_from_slice(b"'\\''"),
            _ => out.push(*byte),
        }
    }
    out.push(b'\'');
    out
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn session<'a>(env: &'a [(String, Vec<u8>)], command: &'a [Vec<u8>]) -> Session<'a> {
        Session {
            release: "6.12.0",
            modules: OsStr::new("/tree's/modules"),
            cwd: OsStr::new("/the tree"),
            env,
            command,
            mark: "77",
        }
    }

    #[test]
    fn words_reach_the_shell_unchanged() {
        for word in ["plain", "two words", "it's", "$HOME `x` \"q\" \\", "", "a\nb", "-n", "ü"] {
            let script = [b"printf '%s' ".as_slice(), &quoted(word.as_bytes())].concat();
            let output = Command::new("sh").arg("-c").arg(OsStr::from_bytes(&script)).output().unwrap();
            assert_eq!(output.stdout, word.as_bytes(), "{word:?}");
        }
    }

    #[test]
    fn both_scripts_are_valid_shell() {
        let home = tempfile::tempdir().unwrap();
        let env = [("A".to_owned(), b"it's".to_vec())];
        let command = [b"echo".to_vec(), b"a'b".to_vec()];
        for script in [first(&["9p.ko".to_owned()], true), second(&session(&env, &command))] {
            let file = home.path().join("script");
            std::fs::write(&file, &script).unwrap();
            assert!(Command::new("sh").arg("-n").arg(&file).status().unwrap().success());
        }
    }

    #[test]
    fn the_command_the_environment_and_the_mark_are_in_the_script() {
        let env = [("A".to_owned(), b"b c".to_vec())];
        let text = String::from_utf8(second(&session(&env, &[b"echo".to_vec(), b"a'b".to_vec()]))).unwrap();
        assert!(text.contains(r"env -i 'A=b c' 'echo' 'a'\''b'"), "{text}");
        assert!(text.contains("guest-end 77 %d"));
        assert!(text.contains("cd '/the tree'"));
    }

    #[test]
    fn run_is_kept_when_the_tree_lies_there() {
        let text = |fresh| String::from_utf8(first(&[], fresh)).unwrap();
        assert!(text(true).contains("mount -t tmpfs -o mode=755 run /new/run"));
        assert!(!text(false).contains("/new/run ||"));
    }
}
