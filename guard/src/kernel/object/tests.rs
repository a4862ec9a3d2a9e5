use aya_obj::Function;
use aya_obj::generated::{
    BPF_ADD, BPF_ALU64, BPF_AND, BPF_CALL, BPF_DW, BPF_JMP, BPF_K, BPF_LDX, BPF_MEM, BPF_STX, bpf_insn,
};
use guard_ebpf::placeholders::{ADD, CPU_MASK, LOAD, field};

use super::*;

/// The register with the stack's upper end.
const FRAME: u8 = 10;
/// `bpf_get_smp_processor_id`
const GET_CPU: i32 = 8;
fn functions() -> Vec<Function> {
    Object::parse(OBJECT).unwrap().functions.into_values().collect()
}

fn is(instruction: bpf_insn, code: u32) -> bool {
    u32::from(instruction.code) == code
}

/// The compiler leaves them as they are written; a field that no program reads any more has no place in the list.
#[test]
fn every_placeholder_is_somewhere() {
    let functions = functions();
    let anywhere =
        |found: &dyn Fn(&bpf_insn) -> bool| functions.iter().any(|function| function.instructions.iter().any(found));
    let load = |i: &bpf_insn| u32::from(i.code) & 0xe7 == BPF_LDX | BPF_MEM;
    let add = |i: &bpf_insn| is(*i, BPF_ALU64 | BPF_ADD | BPF_K);
    for field in 0..field::COUNT {
        let (offset, number) = (LOAD + i16::try_from(field).unwrap(), ADD + i32::try_from(field).unwrap());
        assert!(anywhere(&|i| load(i) && i.off == offset || add(i) && i.imm == number), "field {field}");
    }
    assert!(anywhere(&|i| is(*i, BPF_ALU64 | BPF_AND | BPF_K) && i.imm == CPU_MASK));
}

/// The compiler does not know of the place on the stack where programs save a register around the call for the CPU's
/// number, so these must have nothing else there.
#[test]
fn programs_that_save_a_register_use_the_stack_for_nothing_else() {
    let mut saving = 0;
    for function in functions() {
        let code = &function.instructions;
        let on_stack = |i: &bpf_insn| i.src_reg() == FRAME || i.dst_reg() == FRAME;
        let store = |i: &bpf_insn| is(*i, BPF_STX | BPF_MEM | BPF_DW) && (i.src_reg(), i.off) == (1, -8);
        let load = |i: &bpf_insn| is(*i, BPF_LDX | BPF_MEM | BPF_DW) && (i.dst_reg(), i.off) == (1, -8);
        let call = |i: &bpf_insn| is(*i, BPF_JMP | BPF_CALL) && (i.src_reg(), i.imm) == (0, GET_CPU);
        let saved = code.windows(3).position(|three| store(&three[0]) && call(&three[1]) && load(&three[2]));
        if let Some(saved) = saved {
            let used: Vec<usize> = (0..code.len()).filter(|place| on_stack(&code[*place])).collect();
            assert_eq!(used, [saved, saved + 2], "{}", function.name);
            saving += 1;
        }
    }
    assert_eq!(saving, 3, "the programs on the way of every flow");
}
