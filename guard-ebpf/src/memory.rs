//! Reading the kernel's objects: by loads where the verifier knows the pointer's type, by a helper where it does not.

use core::arch::asm;

use aya_ebpf::helpers::bpf_probe_read_kernel;
use guard_ebpf::placeholders::{ADD, LOAD};

/// The kernel's `struct nf_conn`.
pub enum Conn {}
/// The kernel's `struct net`.
pub enum Net {}
/// The kernel's `struct nf_conntrack_tuple`.
pub enum Tuple {}
/// The kernel's `struct sk_buff`.
pub enum SkBuff {}
/// The kernel's `struct hlist_nulls_node`.
pub enum Node {}

/// A way to read a field of a kernel object.
pub trait Memory {
    /// Whether it is by loads.
    const TYPED: bool;

    /// A field, one of [`guard_ebpf::placeholders::field`], as wide as `T`. A fault reads as zero. In a whole register
    /// whatever its width: narrower types would be widened again, at an instruction each.
    ///
    /// # Safety
    /// `object` must be the kernel's pointer, unchanged: an argument of the hooked function or another field's value.
    unsafe fn field<const FIELD: i16, T: Copy + Default + Into<u64>, O>(object: *const O) -> u64;
}

/// Pointers that carry the kernel's type, as an fentry's arguments do: a field is one load.
pub struct Typed;

impl Memory for Typed {
    const TYPED: bool = true;

    #[inline(always)]
    unsafe fn field<const FIELD: i16, T: Copy + Default + Into<u64>, O>(object: *const O) -> u64 {
        let value: u64;
        macro_rules! load {
            ($width:literal) => {
                // SAFETY: one load. The verifier knows the pointer's type and refuses the program if the offset is not a
                // field's; the kernel turns a fault into a zero.
                unsafe {
                    asm!(
                        concat!("{value} = *(", $width, " *)({object} + {offset})"),
                        value = lateout(reg) value,
                        object = in(reg) object,
                        offset = const LOAD + FIELD,
                        options(pure, readonly, nostack),
                    );
                }
            };
        }
        match size_of::<T>() {
            1 => load!("u8"),
            2 => load!("u16"),
            4 => load!("u32"),
            _ => load!("u64"),
        }
        value
    }
}

/// Any other kernel pointer.
pub struct Probed;

impl Probed {
    /// The field at an offset that the program knows itself.
    ///
    /// # Safety
    /// None is needed: the helper checks the address.
    #[inline(always)]
    pub unsafe fn read<T: Copy + Default>(address: u64) -> T {
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_kernel(address as *const T) }.unwrap_or_default()
    }

    /// Where a field is.
    #[inline(always)]
    pub fn address<const FIELD: i16, O>(object: *const O) -> u64 {
        let mut address = object as u64;
        // SAFETY: one addition.
        unsafe {
            asm!(
                "{address} += {offset}",
                address = inout(reg) address,
                offset = const ADD + FIELD as i32,
                options(pure, nomem, nostack),
            );
        }
        address
    }
}

impl Memory for Probed {
    const TYPED: bool = false;

    #[inline(always)]
    unsafe fn field<const FIELD: i16, T: Copy + Default + Into<u64>, O>(object: *const O) -> u64 {
        // SAFETY: the helper checks the address.
        unsafe { Self::read::<T>(Self::address::<FIELD, O>(object)) }.into()
    }
}
