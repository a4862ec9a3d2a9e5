//! The kernel's BTF with members at other places than they are, and functions with other arguments, for the guard to read:
//! Documentation/bpf/btf.rst.

use std::fs;

/// Where the kernel shows it.
pub const FOLDER: &str = "/sys/kernel/btf";

const STRUCT: u32 = 4;
const UNION: u32 = 5;
const FUNC: u32 = 12;

/// vmlinux's, and the module's on top of it where it has its own.
pub struct Btf {
    files: Vec<File>,
    /// By id, from 1 on: which file, and where in it.
    types: Vec<(usize, usize)>,
}

struct File {
    name: &'static str,
    bytes: Vec<u8>,
    changed: bool,
}

/// A member's record.
struct Member {
    file: usize,
    at: usize,
    type_id: u32,
}

impl Btf {
    pub fn read() -> Self {
        let read = |name: &'static str| {
            let bytes = fs::read(format!("{FOLDER}/{name}")).ok()?;
            Some(File { name, bytes, changed: false })
        };
        let files: Vec<File> = ["vmlinux", "nf_conntrack"].into_iter().filter_map(read).collect();
        let mut types = Vec::new();
        for (index, file) in files.iter().enumerate() {
            let mut at = (file.word(4) + file.word(8)) as usize;
            let end = at + file.word(12) as usize;
            while at < end {
                types.push((index, at));
                let vlen = (file.word(at + 4) & 0xffff) as usize;
                at += 12
                    + match file.kind(at) {
                        1 | 14 | 17 => 4,
                        3 => 12,
                        4 | 5 | 15 | 19 => 12 * vlen,
                        6 | 13 => 8 * vlen,
                        _ => 0,
                    };
            }
        }
        Self { files, types }
    }

    /// Says that the member is so many bits further on than it is.
    pub fn shift(&mut self, of: &str, path: &[&str], bits: u32) {
        let mut place = self.find(STRUCT, of).unwrap_or_else(|| panic!("no struct {of}"));
        let mut found = None;
        for step in path {
            let member = self.member(place, step).unwrap_or_else(|| panic!("{of} has no {}", path.join(".")));
            place = self.resolve(member.type_id);
            found = Some(member);
        }
        let Member { file, at, .. } = found.unwrap();
        let file = &mut self.files[file];
        let moved = file.word(at + 8) + bits;
        file.bytes[at + 8..at + 12].copy_from_slice(&moved.to_ne_bytes());
        file.changed = true;
    }

    /// Says that the function takes what `other` takes.
    pub fn retype(&mut self, function: &str, other: &str) {
        let place = |name| self.find(FUNC, name).unwrap_or_else(|| panic!("no function {name}"));
        let ((file, at), (from, other)) = (place(function), place(other));
        let takes = self.files[from].word(other + 8);
        let file = &mut self.files[file];
        file.bytes[at + 8..at + 12].copy_from_slice(&takes.to_ne_bytes());
        file.changed = true;
    }

    /// The shell's commands that put what was changed in the place of the kernel's, one a line.
    pub fn mounts(&self) -> String {
        let changed = self.files.iter().filter(|file| file.changed);
        changed.map(|file| replace(file.name, &file.bytes) + "\n").collect()
    }

    /// As the guard looks: the module's own first.
    fn find(&self, kind: u32, name: &str) -> Option<(usize, usize)> {
        let is_it = |&&(file, at): &&(usize, usize)| {
            let file = &self.files[file];
            file.kind(at) == kind && self.string(file.word(at)) == name.as_bytes()
        };
        let places = |file: usize| self.types.iter().filter(move |place| place.0 == file);
        places(1).chain(places(0)).find(is_it).copied()
    }

    fn member(&self, (file, at): (usize, usize), name: &str) -> Option<Member> {
        let records = &self.files[file];
        if ![STRUCT, UNION].contains(&records.kind(at)) {
            return None;
        }
        (0..(records.word(at + 4) & 0xffff) as usize).find_map(|index| {
            let at = at + 12 + 12 * index;
            let (string, type_id) = (records.word(at), records.word(at + 4));
            if string == 0 {
                self.member(self.resolve(type_id), name)
            } else {
                (self.string(string) == name.as_bytes()).then_some(Member { file, at, type_id })
            }
        })
    }

    /// Follows typedefs, qualifiers and arrays.
    fn resolve(&self, mut id: u32) -> (usize, usize) {
        loop {
            let (file, at) = self.types[id as usize - 1];
            id = match self.files[file].kind(at) {
                8..=11 | 18 => self.files[file].word(at + 8),
                3 => self.files[file].word(at + 12),
                _ => return (file, at),
            };
        }
    }

    fn string(&self, offset: u32) -> &[u8] {
        let base = &self.files[0];
        let (file, offset) = match offset.checked_sub(base.word(20)) {
            Some(offset) => (&self.files[1], offset),
            None => (base, offset),
        };
        let from = (file.word(4) + file.word(16) + offset) as usize;
        file.bytes[from..].split(|&byte| byte == 0).next().unwrap()
    }
}

impl File {
    fn word(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.bytes[at..at + 4].try_into().unwrap())
    }

    fn kind(&self, at: usize) -> u32 {
        self.word(at + 4) >> 24 & 0x1f
    }
}

/// The shell's command that puts `bytes` in the place of a BTF file.
pub fn replace(name: &str, bytes: &[u8]) -> String {
    let file = std::env::temp_dir().join(format!("btf-{name}"));
    fs::write(&file, bytes).unwrap();
    format!("mount --bind {} {FOLDER}/{name}", file.display())
}
