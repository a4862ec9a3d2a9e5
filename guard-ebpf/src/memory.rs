//! Reading the kernel's objects: by loads where the verifier knows the pointer's type, by a helper where it does not.

use aya_ebpf::helpers::bpf_probe_read_kernel;

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
    /// The field at `offset`, which comes from BTF. A fault reads as zero.
    ///
    /// # Safety
    /// `object` must be the kernel's pointer, unchanged: an argument of the hooked function or another field's value.
    unsafe fn field<T: Copy + Default, O>(object: *const O, offset: u32) -> T;
}

/// Pointers that carry the kernel's type, as an fentry's arguments do: a field is one load.
pub struct Typed;

impl Memory for Typed {
    #[inline(always)]
    unsafe fn field<T: Copy + Default, O>(object: *const O, offset: u32) -> T {
        // SAFETY: the verifier knows the pointer's type and refuses the program if the offset is not a field's; the
        // kernel turns a fault into a zero.
        unsafe { object.cast::<u8>().add(offset as usize).cast::<T>().read_volatile() }
    }
}

/// Any other kernel pointer.
pub struct Probed;

impl Memory for Probed {
    #[inline(always)]
    unsafe fn field<T: Copy + Default, O>(object: *const O, offset: u32) -> T {
        let at = object.cast::<u8>().wrapping_add(offset as usize).cast::<T>();
        // SAFETY: the helper checks the address itself.
        unsafe { bpf_probe_read_kernel(at) }.unwrap_or_default()
    }
}

/// A pointer field. The type is what the kernel says it is, so a fault reads as null.
///
/// # Safety
/// As for [`Memory::field`].
#[inline(always)]
pub unsafe fn pointer<M: Memory, T, O>(object: *const O, offset: u32) -> *const T {
    // SAFETY: as above.
    unsafe { M::field::<Pointer<T>, O>(object, offset).0 }
}

/// Gives a pointer a default.
#[repr(transparent)]
struct Pointer<T>(*const T);

impl<T> Clone for Pointer<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Pointer<T> {}

impl<T> Default for Pointer<T> {
    #[inline(always)]
    fn default() -> Self {
        Self(core::ptr::null())
    }
}
