//! What the operating system says about this process (Linux: `/proc/self`).

use std::fs;
use std::time::Duration;

/// Ticks per second of the times in `/proc/self/stat` where the kernel does not say otherwise (`USER_HZ`, proc(5)).
const CLOCK_TICKS_DEFAULT: u64 = 100;
/// Key of the clock ticks per second in the auxiliary vector, `AT_CLKTCK` of getauxval(3).
const AT_CLKTCK: usize = 17;

/// Resources of the process; what could not be read is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessStats {
    /// User and system time spent by all threads.
    pub cpu: Option<Duration>,
    /// Resident memory, in bytes.
    pub resident: Option<u64>,
    /// Virtual memory, in bytes.
    pub virtual_memory: Option<u64>,
    /// Operating system threads.
    pub threads: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// Most file descriptors allowed.
    pub max_fds: Option<u64>,
}

// === impl ProcessStats ===

impl ProcessStats {
    /// Reads them now: a handful of small reads, some microseconds; not for the request path.
    #[must_use]
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let ticks = fs::read("/proc/self/auxv").ok().and_then(|auxv| clock_ticks(&auxv)).unwrap_or(CLOCK_TICKS_DEFAULT);
        let status = text("/proc/self/status");
        Self {
            cpu: cpu(&text("/proc/self/stat"), ticks),
            resident: kib(&status, "VmRSS:"),
            virtual_memory: kib(&status, "VmSize:"),
            threads: number(&status, "Threads:"),
            open_fds: open_fds(),
            max_fds: number(&text("/proc/self/limits"), "Max open files"),
        }
    }
}

/// Entries of the descriptor directory, without the one that reads it.
fn open_fds() -> Option<u64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(count.saturating_sub(1)).ok()
}

/// The first number after `key` at the beginning of a line.
fn number(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn kib(text: &str, key: &str) -> Option<u64> {
    number(text, key)?.checked_mul(1024)
}

/// `utime` and `stime`: the 14th and 15th field. The name in the second may contain anything, so fields are counted from its end.
fn cpu(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let nanos = (u128::from(user) + u128::from(system)) * 1_000_000_000 / u128::from(ticks_per_second.max(1));
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// The auxiliary vector is pairs of machine words.
fn clock_ticks(auxv: &[u8]) -> Option<u64> {
    const WORD: usize = size_of::<usize>();
    let word = |bytes: &[u8]| bytes.try_into().ok().map(usize::from_ne_bytes);
    let pair = auxv.chunks_exact(2 * WORD).find(|pair| word(&pair[..WORD]) == Some(AT_CLKTCK))?;
    word(&pair[WORD..]).and_then(|ticks| u64::try_from(ticks).ok()).filter(|&ticks| ticks > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 3 0 1 1 1";
        assert_eq!(cpu(stat, 100), Some(Duration::from_secs(3)));
        assert_eq!(cpu("42 (a) S 1", 100), None);
        assert_eq!(cpu("", 100), None);
    }

    #[test]
    fn keyed_lines_are_read_in_their_unit() {
        let status = "Name:\tVmRSS: 9\nVmRSS:\t    20 kB\nThreads:\t7\n";
        assert_eq!((kib(status, "VmRSS:"), number(status, "Threads:")), (Some(20 * 1024), Some(7)));
        assert_eq!(number("Max open files            unlimited   unlimited   files", "Max open files"), None);
        assert_eq!(number("Max open files            1024        4096        files", "Max open files"), Some(1024));
    }

    #[test]
    fn clock_ticks_are_found_in_the_vector() {
        let words = [6_usize, 4096, AT_CLKTCK, 250, 0, 0];
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        assert_eq!(clock_ticks(&bytes), Some(250));
        assert_eq!(clock_ticks(&bytes[..16]), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_all_of_it() {
        let stats = ProcessStats::read();
        assert!(stats.cpu.is_some() && stats.max_fds.is_some(), "{stats:?}");
        assert!(stats.resident > Some(1 << 20) && stats.virtual_memory >= stats.resident, "{stats:?}");
        assert!(stats.threads >= Some(1) && stats.open_fds >= Some(3), "{stats:?}");
    }
}
