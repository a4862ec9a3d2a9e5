//! The few `bpf(2)` commands that aya has no call for: programs on functions of a module need `attach_btf_obj_fd`.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use aya_obj::generated::{
    bpf_attach_type, bpf_attr, bpf_btf_info, bpf_cmd, bpf_insn, bpf_link_info, bpf_prog_info, bpf_prog_type,
};

/// What `BPF_PROG_LOAD` is told of a program.
pub struct Program<'a> {
    /// Shown by bpftool; at most 15 bytes count.
    pub name: &'a str,
    /// The program's licence.
    pub license: &'a CStr,
    /// How it will be attached.
    pub kind: Kind<'a>,
}

/// The kind of program.
#[derive(Clone, Copy)]
pub enum Kind<'a> {
    /// fentry or fexit.
    Tracing {
        /// `BPF_TRACE_FENTRY` or `BPF_TRACE_FEXIT`.
        attach: bpf_attach_type,
        /// The BTF that holds the function: a module's, or `None` for vmlinux's.
        module: Option<BorrowedFd<'a>>,
        /// The function's id in that BTF.
        function: u32,
    },
    /// kprobe or kretprobe.
    Kprobe,
}

/// Loads a program; on failure the verifier's log comes along.
pub fn load(program: &Program<'_>, instructions: &[bpf_insn]) -> Result<OwnedFd, (io::Error, String)> {
    try_load(program, instructions, None).or_else(|error| {
        // Once more with a log: the first try spares a good load the cost of writing one.
        let mut log = vec![0u8; 1 << 20];
        let again = try_load(program, instructions, Some(&mut log));
        let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
        again.map_err(|_| (error, String::from_utf8_lossy(&log[..end]).into_owned()))
    })
}

fn try_load(program: &Program<'_>, instructions: &[bpf_insn], log: Option<&mut [u8]>) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    // SAFETY: all zero is a valid value of this part of the union.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.insns = instructions.as_ptr() as u64;
    load.insn_cnt = length(instructions.len());
    load.license = program.license.as_ptr() as u64;
    for (to, from) in load.prog_name.iter_mut().take(15).zip(program.name.bytes()) {
        *to = from.cast_signed();
    }
    match program.kind {
        Kind::Tracing { attach, module, function } => {
            load.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
            load.expected_attach_type = attach as u32;
            load.attach_btf_id = function;
            if let Some(module) = module {
                load.__bindgen_anon_1.attach_btf_obj_fd = module.as_raw_fd().cast_unsigned();
            }
        }
        Kind::Kprobe => load.prog_type = bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32,
    }
    if let Some(log) = log {
        load.log_level = 1;
        load.log_buf = log.as_mut_ptr() as u64;
        load.log_size = length(log.len());
    }
    bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr)
}

/// Attaches a loaded tracing program to its function. Dropping the answer detaches it.
pub fn attach_tracing(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    attr.raw_tracepoint.prog_fd = program.as_raw_fd().cast_unsigned();
    bpf_fd(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr)
}

/// Sets the only value of an array map.
pub fn set_only_value(map: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
    let key = 0u32;
    let mut attr = zeroed();
    // SAFETY: all zero is a valid value of this part of the union.
    let element = unsafe { &mut attr.__bindgen_anon_2 };
    element.map_fd = map.as_raw_fd().cast_unsigned();
    element.key = &raw const key as u64;
    element.__bindgen_anon_1.value = value.as_ptr() as u64;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Forbids user space further writes, so that the verifier takes the map's values for constants.
pub fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed();
    // SAFETY: all zero is a valid value of this part of the union.
    unsafe { &mut attr.__bindgen_anon_2 }.map_fd = map.as_raw_fd().cast_unsigned();
    bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attr).map(drop)
}

/// The kernel's BTF object of a module.
pub fn module_btf(module: &str) -> io::Result<OwnedFd> {
    let mut id = 0;
    loop {
        id = next_btf(id)?;
        let mut attr = zeroed();
        // SAFETY: all zero is a valid value of this part of the union.
        unsafe { &mut attr.__bindgen_anon_6 }.__bindgen_anon_1.btf_id = id;
        let fd = match bpf_fd(bpf_cmd::BPF_BTF_GET_FD_BY_ID, &mut attr) {
            Ok(fd) => fd,
            // Unloaded between the two calls.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(error) => return Err(error),
        };
        if btf_name(&fd)? == module.as_bytes() {
            return Ok(fd);
        }
    }
}

fn next_btf(after: u32) -> io::Result<u32> {
    let mut attr = zeroed();
    // SAFETY: all zero is a valid value of this part of the union.
    let ids = unsafe { &mut attr.__bindgen_anon_6 };
    ids.__bindgen_anon_1.start_id = after;
    bpf(bpf_cmd::BPF_BTF_GET_NEXT_ID, &mut attr)?;
    // SAFETY: the command fills in this part of the union.
    Ok(unsafe { attr.__bindgen_anon_6.next_id })
}

fn btf_name(btf: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut name = vec![0u8; 64];
    // SAFETY: plain integers; all zero is valid.
    let mut info: bpf_btf_info = unsafe { std::mem::zeroed() };
    info.name = name.as_mut_ptr() as u64;
    info.name_len = length(name.len());
    object_info(btf, &mut info)?;
    name.truncate(info.name_len as usize);
    Ok(name)
}

/// Attaches a loaded kprobe program to a perf event by a link, which tells of missed hits. Dropping the answer detaches it.
pub fn link_to_event(program: BorrowedFd<'_>, event: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    attr.link_create.__bindgen_anon_2.target_fd = event.as_raw_fd().cast_unsigned();
    attr.link_create.attach_type = bpf_attach_type::BPF_PERF_EVENT as u32;
    bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// Runs of the program that the kernel skipped: of fentry's and fexit's, because the program was running on that CPU already
/// (since Linux 5.12, and none are skipped before); of a kprobe's, because another one's program was (counted since 6.7).
pub fn skipped_runs(program: &OwnedFd) -> io::Result<u64> {
    program_info(program).map(|info| info.recursion_misses)
}

/// Hits of the kprobe behind a link for which no program was run: in another kprobe, or with no room for another return.
pub fn missed_hits(link: &OwnedFd) -> io::Result<u64> {
    // SAFETY: plain integers; all zero is valid.
    let mut info: bpf_link_info = unsafe { std::mem::zeroed() };
    object_info(link, &mut info)?;
    // SAFETY: plain integers, whichever part the kernel has filled in; of a link to a perf event it is this one.
    let event = unsafe { info.__bindgen_anon_1.perf_event };
    // SAFETY: as above; of an event that is a kprobe it is this one.
    Ok(unsafe { event.__bindgen_anon_1.kprobe.missed })
}

/// The program's id, as bpftool shows it.
pub fn program_id(program: &OwnedFd) -> io::Result<u32> {
    program_info(program).map(|info| info.id)
}

fn program_info(program: &OwnedFd) -> io::Result<bpf_prog_info> {
    // SAFETY: plain integers; all zero is valid.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    object_info(program, &mut info)?;
    Ok(info)
}

fn object_info<T>(object: &OwnedFd, info: &mut T) -> io::Result<()> {
    let mut attr = zeroed();
    attr.info.bpf_fd = object.as_raw_fd().cast_unsigned();
    attr.info.info_len = length(size_of::<T>());
    attr.info.info = &raw mut *info as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

/// Lengths are 32 bits wide in `bpf_attr`, and nothing here comes near that.
fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn zeroed() -> bpf_attr {
    // SAFETY: a union of plain integers; all zero is valid, and what the kernel wants for what is not set.
    unsafe { std::mem::zeroed() }
}

fn bpf_fd(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the command has just made this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: every pointer in `attr` leads to memory that outlives the call and is as long as `attr` says.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
