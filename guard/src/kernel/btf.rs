//! The few types the guard needs, read from the kernel's BTF (Documentation/bpf/btf.rst) in one linear pass.
//!
//! A module's BTF is split: its type ids and string offsets go on where vmlinux's end, so both files are read. They are
//! dropped as soon as the offsets are known; a full parse of vmlinux takes seconds on a slow host and megabytes for good.

mod window;

use std::fs::File;
use std::path::Path;

use window::Window;

use super::Error;

/// Typedefs and qualifiers around a type, and anonymous structs around a member: a kernel's are a few deep, and what is
/// deeper leads round in a circle.
const DEEPEST: usize = 32;
const MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FWD: u32 = 7;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_FLOAT: u32 = 16;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// One BTF file: vmlinux's, or a module's on top of it.
pub struct Btf {
    file: Window,
    /// Offset of each type in the file; index 0 is the type `first_id`.
    types: Vec<u32>,
    /// Of each struct, its name's offset and its own.
    structs: Vec<(u32, u32)>,
    /// Names are compared everywhere, so these are in memory as a whole: 2 MiB of vmlinux's 5.
    strings: Vec<u8>,
    first_id: u32,
    first_string: u32,
    base: Option<Box<Btf>>,
}

/// A place in the BTF: the file and the offset of the type's record.
#[derive(Clone, Copy)]
struct Type<'a> {
    file: &'a Btf,
    at: usize,
}

impl Btf {
    /// Reads vmlinux's BTF below `root` and, where `module` has BTF of its own, that on top of it.
    pub fn read(root: &Path, module: Option<&str>) -> Result<Self, Error> {
        let directory = root.join("sys/kernel/btf");
        let parse = |name: &str, base| {
            let path = directory.join(name);
            match File::open(&path) {
                Ok(file) => Self::parse(file, base).map_err(|what| Error::BadBtf { path, what }),
                Err(source) => Err(Error::NoBtf { path, source }),
            }
        };
        let base = parse("vmlinux", None)?;
        match module {
            Some(module) => parse(module, Some(base)),
            None => Ok(base),
        }
    }

    /// Indexes BTF as the kernel exports it, on top of `base` if it is a module's. An error says what is wrong with it.
    pub fn parse(file: File, base: Option<Self>) -> Result<Self, &'static str> {
        let file = Window::new(file);
        let word = |at| file.word(at).ok_or("it is cut short");
        if word(0)?.to_ne_bytes()[..2] != MAGIC.to_ne_bytes() {
            return Err("it does not begin with BTF's magic number");
        }
        let header = word(4)? as usize;
        let (types_at, types_len) = (header + word(8)? as usize, word(12)? as usize);
        let (strings_at, strings_len) = (header + word(16)? as usize, word(20)? as usize);
        let strings = file.bytes(strings_at, strings_len).ok_or("its strings are cut short")?;
        let (mut types, mut structs) = (Vec::new(), Vec::new());
        let mut at = types_at;
        while at < types_at + types_len {
            let place = u32::try_from(at).map_err(|_| "it is larger than 4 GiB")?;
            types.push(place);
            let info = word(at + 4)?;
            let (kind, vlen) = (kind(info), (info & 0xffff) as usize);
            if kind == KIND_STRUCT {
                structs.push((word(at)?, place));
            }
            let tail = match kind {
                KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                KIND_ARRAY => 12,
                KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * vlen,
                KIND_ENUM | KIND_FUNC_PROTO => 8 * vlen,
                KIND_PTR | KIND_FWD..=KIND_FUNC | KIND_FLOAT | KIND_TYPE_TAG => 0,
                _ => return Err("it has a kind of type that this version does not know"),
            };
            at += 12 + tail;
        }
        types.shrink_to_fit();
        // Id 0 is void and has no record.
        let first_id = base.as_ref().map_or(1, |base| base.id(base.types.len()));
        let first_string = base.as_ref().map_or(0, |base| length(&base.strings));
        Ok(Self { file, types, structs, strings, first_id, first_string, base: base.map(Box::new) })
    }

    /// The id of the function `name` and the number of its arguments.
    pub fn function(&self, name: &str) -> Result<(u32, usize), Error> {
        let missing = || Error::NoFunction(name.to_owned());
        let (index, function) = self
            .types
            .iter()
            .map(|&at| Type { file: self, at: at as usize })
            .enumerate()
            .find(|(_, candidate)| candidate.kind() == KIND_FUNC && candidate.is_named(name))
            .ok_or_else(missing)?;
        let prototype = self.by_id(function.type_or_size()).ok_or_else(missing)?;
        Ok((self.id(index), prototype.vlen()))
    }

    /// The byte offset of a member, named by the path to it: `["tuplehash", "1", "hnnode", "next"]`, where a number is
    /// an index into an array. Members of anonymous structs and unions are found as in C.
    pub fn offset(&self, of: &str, path: &[&str]) -> Result<u32, Error> {
        self.place(of, path).map(|(_, bits)| bits / 8)
    }

    /// Whether a member is there and is an integer of so many bytes.
    pub fn is_number(&self, of: &str, path: &[&str], bytes: usize) -> bool {
        let is_it =
            |member: Type<'_>| member.kind() == KIND_INT && member.size().is_some_and(|size| size as usize == bytes);
        self.place(of, path).is_ok_and(|(member, _)| is_it(member))
    }

    /// A member and its offset in bits.
    fn place(&self, of: &str, path: &[&str]) -> Result<(Type<'_>, u32), Error> {
        let missing = || Error::NoMember { of: of.to_owned(), path: path.join(".") };
        let mut place = self.structure(of).ok_or_else(missing)?;
        let mut bits = 0;
        for step in path {
            if let Ok(index) = step.parse::<u32>() {
                let (element, length) = place.array().ok_or_else(missing)?;
                let element = self.by_id(element).map(|t| self.resolve(t)).ok_or_else(missing)?;
                if index >= length {
                    return Err(missing());
                }
                let size = element.size().and_then(|size| size.checked_mul(8)?.checked_mul(index));
                bits = size.and_then(|more| more.checked_add(bits)).ok_or_else(missing)?;
                place = element;
            } else {
                let (member, offset) = self.member(place, step, DEEPEST).ok_or_else(missing)?;
                bits = offset.checked_add(bits).ok_or_else(missing)?;
                place = member;
            }
        }
        Ok((place, bits))
    }

    /// One of its own members and its offset in bits, through at most so many anonymous structs.
    fn member(&self, of: Type<'_>, name: &str, deepest: usize) -> Option<(Type<'_>, u32)> {
        if deepest == 0 || !matches!(of.kind(), KIND_STRUCT | KIND_UNION) {
            return None;
        }
        // With the kind flag, the upper byte of an offset is a bit field's width.
        let mask = if of.info() >> 31 == 1 { 0x00ff_ffff } else { u32::MAX };
        (0..of.vlen()).find_map(|index| {
            let at = of.at + 12 + 12 * index;
            let [string, type_id, offset] = [0, 4, 8].map(|field| of.file.word(at + field));
            let offset = offset & mask;
            let member = self.resolve(self.by_id(type_id)?);
            if string == 0 {
                let (inner, more) = self.member(member, name, deepest - 1)?;
                Some((inner, offset.checked_add(more)?))
            } else {
                (self.string(string)? == name.as_bytes()).then_some((member, offset))
            }
        })
    }

    fn structure(&self, name: &str) -> Option<Type<'_>> {
        let named = |&&(string, _): &&(u32, u32)| self.string(string) == Some(name.as_bytes());
        match self.structs.iter().find(named) {
            Some(&(_, at)) => Some(Type { file: self, at: at as usize }),
            None => self.base.as_ref()?.structure(name),
        }
    }

    /// Follows typedefs and qualifiers.
    fn resolve<'a>(&'a self, mut from: Type<'a>) -> Type<'a> {
        for _ in 0..DEEPEST {
            if !matches!(from.kind(), KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG) {
                break;
            }
            match self.by_id(from.type_or_size()) {
                Some(to) => from = to,
                None => break,
            }
        }
        from
    }

    fn by_id(&self, id: u32) -> Option<Type<'_>> {
        match id.checked_sub(self.first_id) {
            Some(index) => self.types.get(index as usize).map(|&at| Type { file: self, at: at as usize }),
            None => self.base.as_ref()?.by_id(id),
        }
    }

    /// The id of the type at `index` in this file.
    fn id(&self, index: usize) -> u32 {
        self.first_id.saturating_add(u32::try_from(index).unwrap_or(u32::MAX))
    }

    fn string(&self, offset: u32) -> Option<&[u8]> {
        match offset.checked_sub(self.first_string) {
            Some(offset) => {
                let from = self.strings.get(offset as usize..)?;
                from.split(|&byte| byte == 0).next()
            }
            None => self.base.as_ref()?.string(offset),
        }
    }

    /// A word of a record that `parse` has found to lie inside the file.
    fn word(&self, at: usize) -> u32 {
        self.file.word(at).unwrap_or(0)
    }
}

impl Type<'_> {
    fn info(&self) -> u32 {
        self.file.word(self.at + 4)
    }
    fn kind(&self) -> u32 {
        kind(self.info())
    }
    fn vlen(&self) -> usize {
        (self.info() & 0xffff) as usize
    }
    fn type_or_size(&self) -> u32 {
        self.file.word(self.at + 8)
    }
    fn is_named(&self, name: &str) -> bool {
        self.file.string(self.file.word(self.at)).is_some_and(|found| found == name.as_bytes())
    }
    /// Bytes of a value of this type; `None` where the guard has no use for it.
    fn size(&self) -> Option<u32> {
        matches!(self.kind(), KIND_INT | KIND_STRUCT | KIND_UNION | KIND_ENUM).then(|| self.type_or_size())
    }
    /// Element type and length of an array.
    fn array(&self) -> Option<(u32, u32)> {
        (self.kind() == KIND_ARRAY).then(|| (self.file.word(self.at + 12), self.file.word(self.at + 20)))
    }
}

fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

/// `parse` has read the length from 32 bits.
fn length(strings: &[u8]) -> u32 {
    u32::try_from(strings.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
