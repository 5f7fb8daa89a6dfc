//! This machine: its CPUs, and what processes take of it.

use std::{
    collections::HashMap,
    fs,
    os::unix::process::CommandExt as _,
    process::{self, Command, ExitCode},
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs of the generator and those of what it measures: half of them each, none of
/// them shared, if there are two at least.
pub(crate) fn halves() -> Option<(Vec<usize>, Vec<usize>)> {
    let mut all = cpus();
    let others = all.split_off(all.len().div_ceil(2));
    (!others.is_empty()).then_some((all, others))
}

/// The CPUs that this process may run on.
pub(crate) fn cpus() -> Vec<usize> {
    let allowed = sched_getaffinity(None).expect("it is known where this runs");
    (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect()
}

/// From how many threads the generator asks.
pub(crate) fn generators(cpus: Option<&[usize]>) -> usize {
    cpus.map_or_else(|| self::cpus().len().div_ceil(2), <[usize]>::len)
}

/// Keeps this thread, and what it starts, on these CPUs.
pub(crate) fn pin(cpus: &[usize]) {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu);
    }
    sched_setaffinity(None, &set).expect("these are of this process");
}

/// Becomes the program in these arguments, `CPU,CPU… PROGRAM ARGUMENTS…`, on those CPUs.
pub(crate) fn become_pinned(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let cpus = arguments.next().expect("the CPUs come first");
    pin(&cpus.split(',').map(|cpu| cpu.parse().expect("a number")).collect::<Vec<_>>());
    let program = arguments.next().expect("the program comes next");
    let error = Command::new(&program).args(arguments).exec();
    panic!("{program}: {error}");
}

/// The CPU time of a process, from when it is started.
pub(crate) struct Meter {
    process: u32,
    before: HashMap<String, u64>,
}

impl Meter {
    pub(crate) fn start(process: u32) -> Self {
        Self { process, before: threads(process) }
    }

    /// What its threads ran since; that of one that ended meanwhile is not seen.
    pub(crate) fn elapsed(&self) -> Duration {
        let nanos = threads(self.process)
            .iter()
            .map(|(thread, now)| now - self.before.get(thread).copied().unwrap_or(0))
            .sum();
        Duration::from_nanos(nanos)
    }
}

/// The nanoseconds that each thread of a process has run.
fn threads(process: u32) -> HashMap<String, u64> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("the process runs");
    tasks
        .filter_map(|task| {
            let task = task.ok()?;
            let statistics = fs::read_to_string(task.path().join("schedstat")).ok()?;
            let nanos = statistics.split(' ').next()?.parse().ok()?;
            Some((task.file_name().into_string().ok()?, nanos))
        })
        .collect()
}

/// What others take of this machine, from when it is started: its host, and processes
/// that this one has not started.
pub(crate) struct Others {
    since: Instant,
    before: u64,
}

impl Others {
    pub(crate) fn start() -> Self {
        Self { since: Instant::now(), before: stolen() + of_others() }
    }

    /// Their share of all CPUs' time since.
    pub(crate) fn share(&self) -> f64 {
        let taken = (stolen() + of_others()).saturating_sub(self.before) as f64 / HERTZ;
        taken / (self.since.elapsed().as_secs_f64() * cpus().len() as f64)
    }
}

/// In which the system counts CPU time in these files, a second.
const HERTZ: f64 = 100.0;

/// What the host took while something wanted to run, on all CPUs.
fn stolen() -> u64 {
    let statistics = fs::read_to_string("/proc/stat").unwrap_or_default();
    let all = statistics.lines().next().unwrap_or_default();
    all.split_whitespace().nth(8).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

/// The CPU time of all processes that do not descend from this one, with that of their
/// children that ended. The system's own threads are no processes.
fn of_others() -> u64 {
    let all: HashMap<u32, (u32, u64)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let process = path.file_name()?.to_str()?.parse().ok()?;
            let statistics = fs::read_to_string(path.join("stat")).ok()?;
            // The name before may hold anything.
            let fields: Vec<&str> = statistics.rsplit_once(')')?.1.split_whitespace().collect();
            let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok());
            Some((process, (fields.get(1)?.parse().ok()?, ticks.sum())))
        })
        .collect();
    let is_other = |process: &u32| {
        let parent = |process: &u32| all.get(process).map(|(parent, _)| *parent);
        std::iter::successors(Some(*process), parent)
            .all(|ancestor| ancestor != process::id() && ancestor != SYSTEM)
    };
    all.iter().filter(|(process, _)| is_other(process)).map(|(_, (_, ticks))| ticks).sum()
}

/// The parent of the system's own threads.
const SYSTEM: u32 = 2;

/// The memory that a process has, in bytes.
pub(crate) fn memory(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    kilobytes(&status, "VmRSS:") * 1024.0
}

fn kilobytes(text: &str, name: &str) -> f64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0.0)
}

/// What a reader of the figures must know of the machine.
pub(crate) fn description() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let information = read("/proc/cpuinfo");
    let model = information
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown CPU", |(_, model)| model.trim());
    let memory = kilobytes(&read("/proc/meminfo"), "MemTotal:") / f64::from(1 << 20);
    let kernel = read("/proc/sys/kernel/osrelease");
    let rustc = version(Command::new("rustc").arg("--version"));
    format!("{} × {model}, {memory:.0} GiB, Linux {}, {rustc}", cpus().len(), kernel.trim(),)
}

/// The first line that a program says of its version.
pub(crate) fn version(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or("unknown version").to_owned()
}
