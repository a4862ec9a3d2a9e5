//! How soon the scheduler lets a thread of the guard run. What answers a surge must not wait for whatever causes it: at the
//! ordinary priority an answer was held up for 4 ms, one tick of the scheduler, up to four times.

use std::io;

use rustix::process::setpriority_process;

/// Before others: the calling thread, and those it starts from now on. Needs CAP_SYS_NICE, or to have it already.
pub fn urgent() -> io::Result<()> {
    Ok(setpriority_process(None, -20)?)
}

/// Like any other: the calling thread, which writes to a disk or compresses.
pub fn ordinary() {
    // Anybody may give way.
    let _ = setpriority_process(None, 0);
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::process::getpriority_process;

    use super::*;

    /// Threads of their own: a thread's priority is the thread's.
    #[test]
    fn a_thread_passes_its_priority_on_and_gives_it_back() {
        let of_this_thread = || getpriority_process(None).unwrap();
        thread::spawn(move || {
            if let Err(error) = urgent() {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
                return;
            }
            let started = move || {
                let passed_on = of_this_thread();
                ordinary();
                (passed_on, of_this_thread())
            };
            assert_eq!(thread::spawn(started).join().unwrap(), (-20, 0));
            assert_eq!(of_this_thread(), -20);
        })
        .join()
        .unwrap();
    }
}
