//! What a function was called with, kept by a kprobe at its entry for the kretprobe, which knows its arguments no more.
//!
//! One place for each CPU, so a softirq that comes between entry and return and calls the same function takes the place
//! for its own call. The stack pointer tells: it is the same at both ends of one call and of no other that is not over,
//! and the place is emptied at each return. The interrupted call then finds nothing, never another call's arguments.
#![allow(unexpected_cfgs, reason = "aya-build names the processor that the object is for")]

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::maps::PerCpuArray;

/// The call that this CPU's last kprobe saw.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Call {
    /// The stack pointer once it is over; 0: there is none.
    after: u64,
    first: u64,
    second: u64,
}

/// At the entry: keeps two arguments.
#[inline(always)]
pub fn entered<A, B>(calls: &PerCpuArray<Call>, registers: *const pt_regs, first: *const A, second: *const B) {
    let Some(place) = calls.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's place. Programs of kprobes do not interrupt each other: the kernel skips the second one.
    unsafe { *place = Call { after: after(registers), first: first as u64, second: second as u64 } };
}

/// At the return: the arguments, if they are this call's.
#[inline(always)]
pub fn returned<A, B>(calls: &PerCpuArray<Call>, registers: *const pt_regs) -> Option<(*const A, *const B)> {
    let place = calls.get_ptr_mut(0)?;
    // SAFETY: as above.
    let call = unsafe { *place };
    // SAFETY: as above.
    unsafe { (*place).after = 0 };
    (call.after != 0 && call.after == stack(registers)).then_some((call.first as *const A, call.second as *const B))
}

/// The stack pointer at a function's entry, which points to the return address, as it will be after the return has taken
/// that off.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
fn after(registers: *const pt_regs) -> u64 {
    stack(registers) + 8
}

#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
fn stack(registers: *const pt_regs) -> u64 {
    // SAFETY: the program's own context.
    unsafe { (*registers).rsp }
}

/// Not known for other processors; the loader does not take programs there that need it.
#[cfg(not(bpf_target_arch = "x86_64"))]
fn after(_registers: *const pt_regs) -> u64 {
    0
}

#[cfg(not(bpf_target_arch = "x86_64"))]
fn stack(_registers: *const pt_regs) -> u64 {
    0
}
