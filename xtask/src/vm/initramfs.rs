//! A guest's first root, as a cpio archive in the "newc" format that the kernel unpacks (its
//! Documentation/driver-api/early-userspace/buffer-format.rst). Kept small: it is read under emulation.

use std::io::{self, Write};

/// Permission bits of what the archive holds.
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CONSOLE: u32 = 0o020_600;

/// Writes the archive entry by entry.
pub struct Archive<W> {
    out: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    /// An archive without entries.
    pub fn new(out: W) -> Self {
        Self { out, entries: 0 }
    }

    /// A folder; its parent must have been added before.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, DIRECTORY, (0, 0), &[])
    }

    /// A file that may be executed.
    pub fn program(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.entry(path, PROGRAM, (0, 0), content)
    }

    /// `/dev/console`, so that the first script's words reach the log.
    pub fn console(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, CONSOLE, (5, 1), &[])
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        let too_large =
            |_| io::Error::new(io::ErrorKind::InvalidInput, format!("{path} is too large for an initramfs"));
        let size = u32::try_from(content.len()).map_err(too_large)?;
        let name_size = u32::try_from(path.len() + 1).map_err(too_large)?;
        self.entries += 1;
        // ino, mode, uid, gid, nlink, mtime, filesize, dev (major, minor), rdev (major, minor), namesize, check
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        let header = fields.map(|field| format!("{field:08X}")).concat();
        self.padded(&[b"070701", header.as_bytes(), path.as_bytes(), b"\0"].concat())?;
        self.padded(content)
    }

    /// Header with name, and content, each start on a multiple of four.
    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        let missing = bytes.len().next_multiple_of(4) - bytes.len();
        self.out.write_all(&[0; 3][..missing])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_newc() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.directory("dev").unwrap();
        archive.console("dev/console").unwrap();
        archive.program("init", b"#!x\n1").unwrap();
        archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        // 110 bytes of header, "dev" and its zero, padded to a multiple of 4.
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[14..22], b"000041ED");
        assert_eq!(&bytes[110..116], b"dev\0\0\0");
        let console = &bytes[116..];
        assert_eq!(&console[78..94], b"0000000500000001");
        let init = bytes.windows(8).position(|w| w == b"init\0\0#!").unwrap();
        assert_eq!(&bytes[init + 6..init + 14], b"#!x\n1\0\0\0");
        assert!(bytes.windows(11).any(|w| w == b"TRAILER!!!\0"));
    }
}
