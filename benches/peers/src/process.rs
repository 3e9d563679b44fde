//! Child processes: each on its processor, none outliving us, and what the kernel says about them.
//!
//! A child is started through ourselves: [`become_child`] binds to the processor, asks the kernel to be killed when we are gone (however we
//! went), and turns into the program. Dropping a [`Child`] ends it; [`interrupted`] turns a signal into an ordinary way out.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getrlimit, kill_process, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::failure::{Failure, While};

/// The first argument that makes this program a child.
pub const CHILD: &str = "__child";
/// How often something awaited is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// How long a program has to end by itself.
const ENDING: Duration = Duration::from_secs(2);
/// Open files we and the proxies need: ten thousand connections on each side of us.
const FILES: u64 = 65_536;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// A running program. Dropping it ends it: by SIGTERM, and after [`ENDING`] by SIGKILL.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    name: String,
    log: PathBuf,
}

/// What to run and where.
#[derive(Debug)]
pub struct Program<'a> {
    /// Its name in messages.
    pub name: &'a str,
    /// The processor it is bound to.
    pub core: usize,
    /// The program and its arguments.
    pub command: &'a [OsString],
    /// Where its standard output goes, appended.
    pub stdout: &'a Path,
    /// Where its standard error goes, appended.
    pub stderr: &'a Path,
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident, shared pages included.
    pub resident: u64,
    /// Resident and its own: heap and stacks.
    pub anonymous: u64,
}

// === impl Child ===

impl Child {
    /// Starts a program.
    ///
    /// # Errors
    /// When it or the files for its output cannot be had.
    pub fn start(program: &Program<'_>) -> Result<Self, Failure> {
        let append = |path: &Path| File::options().create(true).append(true).open(path);
        let stdout = append(program.stdout).doing(&format!("opening {}", program.stdout.display()))?;
        let stderr = append(program.stderr).doing(&format!("opening {}", program.stderr.display()))?;
        let process = Command::new(std::env::current_exe()?)
            .arg(CHILD)
            .arg(program.core.to_string())
            .args(program.command)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0)
            .spawn()
            .doing(&format!("starting {}", program.name))?;
        Ok(Self { process, name: program.name.into(), log: program.stderr.into() })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// When it has not after `most`, with a status other than 0, and when a signal asks us to stop.
    pub fn finish(&mut self, most: Duration) -> Result<(), Failure> {
        match self.wait(most)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(Failure(format!("{} ended with {status}: {}", self.name, self.last_words()))),
            None => Err(Failure(format!("{} did not end within {} s", self.name, most.as_secs()))),
        }
    }

    /// Asks it to end with an interrupt and waits.
    ///
    /// # Errors
    /// When it has not after `most`, and when a signal asks us to stop.
    pub fn interrupt(&mut self, most: Duration) -> Result<(), Failure> {
        self.signal(Signal::INT)?;
        self.wait(most)?.map(drop).ok_or_else(|| Failure(format!("{} does not stop", self.name)))
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// Its end, with its last words.
    pub fn alive(&mut self) -> Result<(), Failure> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => Err(Failure(format!("{} ended with {status}: {}", self.name, self.last_words()))),
        }
    }

    /// The end of what it wrote to standard error.
    #[must_use]
    pub fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(4)..].join(" | ")
    }

    /// Nanoseconds its threads have run, from the scheduler.
    ///
    /// # Errors
    /// When it is gone, or the kernel keeps no such figures.
    pub fn cpu_nanos(&self) -> Result<u64, Failure> {
        let mut nanos = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.id())).doing(&format!("looking at {}", self.name))? {
            let stat = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            nanos += stat.split(' ').next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        }
        if nanos == 0 {
            return Err(Failure(format!("{}: no figures in /proc/PID/task/*/schedstat", self.name)));
        }
        Ok(nanos)
    }

    /// Its memory.
    ///
    /// # Errors
    /// When it is gone.
    pub fn memory(&self) -> Result<Memory, Failure> {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.id())).doing(&format!("looking at {}", self.name))?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().nth(0)?.parse::<u64>().ok()
        };
        match (kib("VmRSS:"), kib("RssAnon:")) {
            (Some(resident), Some(anonymous)) => {
                Ok(Memory { resident: resident * 1_024, anonymous: anonymous * 1_024 })
            }
            _ => Err(Failure(format!("{} has no memory: it ended", self.name))),
        }
    }

    fn wait(&mut self, most: Duration) -> Result<Option<ExitStatus>, Failure> {
        let begun = Instant::now();
        while begun.elapsed() < most {
            if let Some(status) = self.process.try_wait()? {
                return Ok(Some(status));
            }
            pause(LOOK)?;
        }
        Ok(None)
    }

    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let id =
            i32::try_from(self.id()).ok().and_then(Pid::from_raw).ok_or_else(|| Failure("no process id".into()))?;
        kill_process(id, signal).doing(&format!("signalling {}", self.name))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // A program that ends by itself also writes what it keeps until its end: the profile of `make pgo`.
        if self.signal(Signal::TERM).is_ok() {
            let _ = self.wait(ENDING);
        }
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Turns into the program named by the arguments after [`CHILD`]: `CORE PROGRAM ARGUMENTS...`. Returns only when that fails.
pub fn become_child(mut arguments: impl Iterator<Item = OsString>) -> Failure {
    let become_it = || -> Result<Failure, Failure> {
        let core = arguments.next().and_then(|core| core.to_str()?.parse().ok());
        let core = core.ok_or_else(|| Failure("no processor".into()))?;
        let program = arguments.next().ok_or_else(|| Failure("no program".into()))?;
        set_parent_process_death_signal(Some(Signal::KILL)).doing("asking to end with the parent")?;
        pin_current_thread(core).doing("binding to a processor")?;
        let error = Command::new(&program).args(arguments).exec();
        Ok(Failure(format!("running {}: {error}", program.display())))
    };
    become_it().unwrap_or_else(|failure| failure)
}

/// Binds the calling thread, and what it starts from now on, to a processor.
///
/// # Errors
/// When there is no such processor.
pub fn pin_current_thread(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// The processors we may run on.
///
/// # Errors
/// When the kernel does not say.
pub fn cores() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
}

/// Raises the number of files that we and our children may open, as far as the system lets us.
pub fn raise_files() {
    let now = getrlimit(Resource::Nofile);
    let wanted =
        Rlimit { current: Some(FILES), maximum: Some(now.maximum.map_or(FILES, |maximum| maximum.max(FILES))) };
    if setrlimit(Resource::Nofile, wanted).is_err() {
        // Then at least all we are allowed; what needs more says so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
    }
}

/// How many files we and our children may open.
#[must_use]
pub fn files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(FILES)
}

/// From now on SIGINT, SIGTERM and SIGHUP make [`pause`] fail, so that everything is dropped on the way out.
///
/// # Errors
/// When the thread that listens cannot be had.
pub fn heed_signals() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else { return };
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                INTERRUPTED.store(true, Relaxed);
            }
        });
    })?;
    Ok(())
}

/// Whether a signal has asked us to stop.
#[must_use]
pub fn interrupted() -> bool {
    INTERRUPTED.load(Relaxed)
}

/// Waits.
///
/// # Errors
/// When a signal asks us to stop.
pub fn pause(time: Duration) -> Result<(), Failure> {
    let end = Instant::now() + time;
    loop {
        if interrupted() {
            return Err(Failure("interrupted".into()));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
}
