//! Entry point of the `tidemark` program.

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

/// Workers allocate on one thread and free on another all the time; the system's allocator takes locks for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of `mimalloc.h`, for which the crate has no name: how long free pages are kept.
const PURGE_DELAY: mi_option_t = 15;

fn main() -> std::process::ExitCode {
    give_back_at_once();
    tidemark::cli::main()
}

/// Returns pages to the system when they become free. The allocator would keep them until much more has been allocated, so
/// a pipeline that has caught up would keep what its backlog took.
#[expect(unsafe_code, reason = "it is a foreign function")]
fn give_back_at_once() {
    // SAFETY: it stores a number in a static, which may be done at any time. The environment still wins.
    unsafe { mi_option_set_default(PURGE_DELAY, 0) };
}
