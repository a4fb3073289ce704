//! Which threads go before others where there are fewer cores than threads that have something to do.

/// How much less a thread gets that goes behind: a tenth of what the others get.
const NICE: libc::c_int = 10;

/// Puts the calling thread behind those that serve clients: it loses the core to whichever of them wakes up. Nothing
/// is lost where the system refuses, except that they wait for it.
pub fn go_behind() {
    let usual = libc::sched_param { sched_priority: 0 };
    // SAFETY: both calls name the calling thread by 0; the first reads a structure that outlives it.
    unsafe {
        // It may have inherited a real-time policy, to which niceness means nothing.
        libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const usual);
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no scheduler to ask")]
    fn only_the_calling_thread_goes_behind() {
        // SAFETY: these read what the kernel knows of the calling thread.
        let own = || unsafe { (libc::sched_getscheduler(0), libc::getpriority(libc::PRIO_PROCESS, 0)) };
        let before = own();
        let behind = std::thread::spawn(move || {
            go_behind();
            own()
        });
        let (policy, nice) = behind.join().expect("a thread");
        assert_eq!((policy, nice), (libc::SCHED_BATCH, NICE));
        assert_eq!(own(), before);
    }
}
