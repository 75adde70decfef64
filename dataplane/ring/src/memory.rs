//! Memory that the allocator holds back, given to the system again.

/// Returns free heap memory of all threads to the system: malloc_trim(3). Takes up to some
/// milliseconds, in which other threads may wait for memory: for moments without work.
///
/// Other C libraries than glibc have no such call and need none.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: the call takes the allocator's own locks and touches free memory only. Broken
        // by: nothing that a caller can do.
        let _ = unsafe { libc::malloc_trim(0) };
    }
}
