//! A file of which a small part is in memory at a time: vmlinux's types are megabytes, and the guard wants a few of them.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Bytes in memory. Records are looked at one after the other, so a few pages do.
const PART: usize = 1 << 16;

pub struct Window {
    file: File,
    part: RefCell<Part>,
}

struct Part {
    from: usize,
    bytes: Vec<u8>,
}

impl Window {
    /// Reads nothing yet.
    pub fn new(file: File) -> Self {
        Self { file, part: RefCell::new(Part { from: 0, bytes: Vec::new() }) }
    }

    /// The word at this offset; `None` where the file ends or cannot be read.
    pub fn word(&self, at: usize) -> Option<u32> {
        let mut part = self.part.borrow_mut();
        if let Some(word) = part.word(at) {
            return Some(word);
        }
        part.from = at;
        part.bytes.resize(PART, 0);
        let read = self.fill(&mut part.bytes, at)?;
        part.bytes.truncate(read);
        part.word(at)
    }

    /// This many bytes from this offset; `None` where the file ends before or cannot be read.
    pub fn bytes(&self, at: usize, length: usize) -> Option<Vec<u8>> {
        // A length that the file does not have must not be allocated first.
        if self.file.metadata().ok()?.len() < at as u64 + length as u64 {
            return None;
        }
        let mut bytes = vec![0; length];
        (self.fill(&mut bytes, at)? == length).then_some(bytes)
    }

    /// Reads until `bytes` is full or the file ends: files of sysfs give a page at a time.
    fn fill(&self, bytes: &mut [u8], at: usize) -> Option<usize> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.file.read_at(&mut bytes[filled..], (at + filled) as u64).ok()? {
                0 => break,
                read => filled += read,
            }
        }
        Some(filled)
    }
}

impl Part {
    fn word(&self, at: usize) -> Option<u32> {
        let from = at.checked_sub(self.from)?;
        self.bytes.get(from..from + 4)?.try_into().ok().map(u32::from_ne_bytes)
    }
}
