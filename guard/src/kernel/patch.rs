//! Writes into the programs' instructions what only the running kernel knows: offsets of fields, and which CPUs there are.

use aya_obj::generated::{BPF_ADD, BPF_ALU64, BPF_AND, BPF_K, BPF_LDX, BPF_MEM, bpf_insn};
use guard_ebpf::placeholders::{ADD, CPU_MASK, LOAD, field};

use super::Error;
use super::btf::Btf;

/// Where each field is: the struct, the member.
const FIELDS: [(i16, &str, &[&str]); field::COUNT] = [
    (field::STATUS, "nf_conn", &["status"]),
    (field::ORIGINAL_NEXT, "nf_conn", &["tuplehash", "0", "hnnode", "next"]),
    (field::REPLY_NEXT, "nf_conn", &["tuplehash", "1", "hnnode", "next"]),
    (field::NODE_NEXT, "hlist_nulls_node", &["next"]),
    (field::PROTONUM, "nf_conn", &["tuplehash", "0", "tuple", "dst", "protonum"]),
    (field::TCP_STATE, "nf_conn", &["proto", "tcp", "state"]),
    (field::CT_NET, "nf_conn", &["ct_net", "net"]),
    (field::NET_INUM, "net", &["ns", "inum"]),
    (field::TUPLE_SOURCE, "nf_conntrack_tuple", &["src", "u3"]),
    (field::TUPLE_FAMILY, "nf_conntrack_tuple", &["src", "l3num"]),
    (field::TUPLE_DESTINATION, "nf_conntrack_tuple", &["dst", "u", "all"]),
    (field::TUPLE_PROTOCOL, "nf_conntrack_tuple", &["dst", "protonum"]),
    (field::SKB_NFCT, "sk_buff", &["_nfct"]),
    (field::NET_COOKIE, NET_COOKIE.0, NET_COOKIE.1),
];

const NET_COOKIE: (&str, &[&str]) = ("net", &["net_cookie"]);

/// Whether network namespaces have a number that no other has until the next boot. Before Linux 5.12 it is made when somebody
/// asks for it, and the member is an `atomic64_t`.
pub fn has_cookie(btf: &Btf) -> bool {
    btf.is_number(NET_COOKIE.0, NET_COOKIE.1, size_of::<u64>())
}

/// What takes the place of the placeholders.
pub struct Patch {
    /// By field.
    offsets: [i16; field::COUNT],
    /// The highest CPU's number that there is a slot for, all lower bits set.
    cpu_mask: i32,
}

impl Patch {
    /// Looks the fields up. `slots`: how many there are, a power of two.
    pub fn new(btf: &Btf, slots: usize) -> Result<Self, Error> {
        // What is not there is where no verifier lets a load reach.
        let mut offsets = [i16::MAX; field::COUNT];
        let cookie = has_cookie(btf);
        for (place, of, path) in FIELDS.into_iter().filter(|(place, ..)| cookie || *place != field::NET_COOKIE) {
            let place = usize::try_from(place).map_err(|_| Error::Object(format!("it has a field {place}")))?;
            let offset = btf.offset(of, path)?;
            // A load's offset has 16 bits.
            offsets[place] = i16::try_from(offset).map_err(|_| Error::FarMember {
                of: of.to_owned(),
                path: path.join("."),
                offset,
            })?;
        }
        let cpu_mask = i32::try_from(slots - 1).map_err(|_| Error::Object(format!("{slots} slots are too many")))?;
        Ok(Self { offsets, cpu_mask })
    }

    /// Replaces each placeholder.
    pub fn apply(&self, instructions: &mut [bpf_insn]) {
        for instruction in instructions {
            match u32::from(instruction.code) {
                code if code & CLASS_AND_MODE == BPF_LDX | BPF_MEM => {
                    let offset = self.offset(i32::from(instruction.off) - i32::from(LOAD));
                    instruction.off = offset.unwrap_or(instruction.off);
                }
                ADD_NUMBER => {
                    // Two numbers of one sign: their difference fits.
                    let offset = self.offset(instruction.imm.wrapping_sub(ADD));
                    instruction.imm = offset.map_or(instruction.imm, i32::from);
                }
                AND_NUMBER if instruction.imm == CPU_MASK => instruction.imm = self.cpu_mask,
                _ => {}
            }
        }
    }

    fn offset(&self, field: i32) -> Option<i16> {
        self.offsets.get(usize::try_from(field).ok()?).copied()
    }
}

// Operation codes (Documentation/bpf/standardization/instruction-set.rst).
const CLASS_AND_MODE: u32 = 0xe7;
const ADD_NUMBER: u32 = BPF_ALU64 | BPF_ADD | BPF_K;
const AND_NUMBER: u32 = BPF_ALU64 | BPF_AND | BPF_K;

#[cfg(test)]
mod tests {
    use super::*;

    /// No placeholder's offset or number.
    const PATCH: Patch =
        Patch { offsets: [0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 32_767 & !LOAD], cpu_mask: 0x3f };

    fn load(offset: i16) -> bpf_insn {
        instruction(BPF_LDX | BPF_MEM | 0x18, offset, 0)
    }

    fn instruction(code: u32, off: i16, imm: i32) -> bpf_insn {
        // SAFETY: plain integers; all zero is valid.
        let zero: bpf_insn = unsafe { std::mem::zeroed() };
        bpf_insn { code: u8::try_from(code).unwrap(), off, imm, ..zero }
    }

    /// What is at the place of each number that a patch replaces.
    fn numbers(instructions: &[bpf_insn]) -> Vec<(i16, i32)> {
        instructions.iter().map(|instruction| (instruction.off, instruction.imm)).collect()
    }

    fn patched(mut instructions: Vec<bpf_insn>) -> Vec<(i16, i32)> {
        PATCH.apply(&mut instructions);
        numbers(&instructions)
    }

    #[test]
    fn every_field_is_looked_up_once() {
        let mut fields = FIELDS.map(|(field, ..)| usize::try_from(field).unwrap());
        fields.sort_unstable();
        assert_eq!(fields, std::array::from_fn::<_, { field::COUNT }, _>(|field| field));
    }

    #[test]
    fn placeholders_become_offsets_and_the_mask() {
        let status = i32::from(field::STATUS);
        let add = |imm| instruction(ADD_NUMBER, 0, imm);
        let and = |imm| instruction(AND_NUMBER, 0, imm);
        assert_eq!(patched(vec![load(LOAD), load(LOAD + 3)]), [(0, 0), (24, 0)]);
        assert_eq!(patched(vec![add(ADD + status), add(ADD + 2)]), [(0, 0), (0, 16)]);
        assert_eq!(patched(vec![and(CPU_MASK)]), [(0, 0x3f)]);
    }

    #[test]
    fn everything_else_stays() {
        let beyond = i16::try_from(field::COUNT).unwrap();
        let store = instruction(0x7b, LOAD, 0);
        let subtract = instruction(BPF_ALU64 | 0x10, 0, ADD);
        let others = vec![
            load(0),
            load(-8),
            load(LOAD - 1),
            load(LOAD + beyond),
            store,
            subtract,
            instruction(ADD_NUMBER, 0, -8),
            instruction(ADD_NUMBER, 0, i32::MIN),
            instruction(AND_NUMBER, 0, ADD),
            instruction(AND_NUMBER, 0, CPU_MASK - 1),
        ];
        let before = numbers(&others);
        assert_eq!(patched(others), before);
    }
}
