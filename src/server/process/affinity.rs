//! On which cores threads run: `server-cpulist` and `bio-cpulist`.

use std::io;

/// Most cores that a list may name.
const CORES: usize = libc::CPU_SETSIZE as usize;

/// The cores that a list names, such as `0-3,8` or `0-10:2` (every second one); `None`: it is not a list.
fn cores(list: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in list.split(',') {
        let (range, step) = part.split_once(':').unwrap_or((part, "1"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.trim().parse::<usize>().ok();
        let (first, last, step) = (number(first)?, number(last)?, number(step)?);
        if first > last || last >= CORES || step == 0 {
            return None;
        }
        cores.extend((first..=last).step_by(step));
    }
    Some(cores)
}

/// Binds the calling thread, and those that it will start, to the cores of `list`; the empty list: to none.
pub fn bind_thread(list: &str) -> io::Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    let cores = cores(list).ok_or_else(|| io::Error::other("not a list of cores"))?;
    // SAFETY: a set of cores is a plain array of bits, for which zero is valid; every number is below its
    // size; the call reads as many bytes as it is told.
    let code = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for core in cores {
            libc::CPU_SET(core, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// As [`bind_thread`], and says in the log under the directive's name what failed.
pub fn bind_or_warn(directive: &str, list: &str) {
    if let Err(e) = bind_thread(list) {
        tracing::warn!("{directive} {list}: {}", super::os_error::words(&e));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read() {
        for (list, wanted) in [
            ("0", Some(vec![0])),
            ("0-3,8", Some(vec![0, 1, 2, 3, 8])),
            ("0-6:3, 1", Some(vec![0, 3, 6, 1])),
            ("3-1", None),
            ("0-6:0", None),
            ("a", None),
            ("99999", None),
            ("1,", None),
        ] {
            assert_eq!(cores(list), wanted, "{list}");
        }
    }
}
