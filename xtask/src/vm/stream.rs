//! How a guest says that a stream is complete and how its command ended. The command's output comes through a port of
//! the emulator that has no end of its own, so the guest's script ends it with a mark that holds a number drawn for
//! this run: `\0guest-end <number> <exit code>\n`.

use std::io::{self, Read, Write};

/// Copies a stream up to its mark and answers with the exit code in it; `None` if the stream ended without one, which
/// means that the guest died. What is read goes out at once, but for bytes that may be the beginning of the mark.
pub fn copy_until_mark(mut from: impl Read, to: &mut (impl Write + ?Sized), mark: &str) -> io::Result<Option<u8>> {
    let mark = prefix(mark);
    let mut held: Vec<u8> = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // A killed emulator resets the connection: that too is an end.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(error),
        };
        held.extend_from_slice(&buffer[..count]);
        if let Some(at) = find(&held, &mark) {
            let rest = &held[at + mark.len()..];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let code = String::from_utf8_lossy(&rest[..end]).parse().ok();
                to.write_all(&held[..at])?;
                to.flush()?;
                return Ok(code);
            }
            to.write_all(&held[..at])?;
            held.drain(..at);
        } else {
            let free = held.len() - overlap(&held, &mark);
            to.write_all(&held[..free])?;
            held.drain(..free);
        }
        to.flush()?;
    }
    to.write_all(&held)?;
    to.flush()?;
    Ok(None)
}

/// What stands before the exit code.
fn prefix(mark: &str) -> Vec<u8> {
    format!("\0guest-end {mark} ").into_bytes()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// How many bytes at the end may be the beginning of the mark.
fn overlap(bytes: &[u8], mark: &[u8]) -> usize {
    let longest = mark.len().min(bytes.len());
    (1..=longest).rev().find(|length| bytes.ends_with(&mark[..*length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its chunks one read at a time.
    struct Chunks(Vec<Vec<u8>>);

    impl Read for Chunks {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let chunk = self.0.remove(0);
            buffer[..chunk.len()].copy_from_slice(&chunk);
            Ok(chunk.len())
        }
    }

    fn copy(chunks: &[&[u8]]) -> (Vec<u8>, Option<u8>) {
        let mut out = Vec::new();
        let code = copy_until_mark(Chunks(chunks.iter().map(|c| c.to_vec()).collect()), &mut out, "77").unwrap();
        (out, code)
    }

    #[test]
    fn the_mark_is_found_wherever_the_reads_cut_it() {
        let whole = b"text\0guest-end 77 42\n";
        for cut in 1..whole.len() {
            assert_eq!(copy(&[&whole[..cut], &whole[cut..]]), (b"text".to_vec(), Some(42)), "cut at {cut}");
        }
        let single: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(copy(&single), (b"text".to_vec(), Some(42)));
    }

    #[test]
    fn bytes_that_only_begin_like_the_mark_come_through() {
        assert_eq!(copy(&[b"a\0gu", b"ess\0", b"\0guest-end 77 0\n"]), (b"a\0guess\0".to_vec(), Some(0)));
        assert_eq!(copy(&[b"\0guest-end 78 0\n"]), (b"\0guest-end 78 0\n".to_vec(), None));
    }

    #[test]
    fn a_stream_without_its_mark_has_no_code() {
        assert_eq!(copy(&[b"half", b"\0guest-end 77 1"]), (b"half\0guest-end 77 1".to_vec(), None));
        assert_eq!(copy(&[]), (vec![], None));
    }
}
