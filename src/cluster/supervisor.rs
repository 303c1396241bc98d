//! Runs all processes of a pipeline on this machine, and starts them again when one is lost.
//!
//! Process 0 is asked for an orderly end by a signal, and has the others end, if they have come together. All processes but
//! the first have a pipe as their standard input: its end means that the supervisor is gone, whatever became of it. Then they
//! end, and process 0, which has lost them, ends as well. So nobody lingers.

use std::ffi::OsString;
use std::io::{self, Read};
use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus as Ended, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::ending;
use crate::exit::ExitStatus;

/// Pause before the second start; it doubles with each one after that.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A run that lasted so long went well: the next pause is the shortest again.
const WELL: Duration = Duration::from_secs(60);

/// Once one process has failed, or process 0 has ended, how long the others may take.
const GRACE: Duration = Duration::from_secs(15);

/// The same once process 0 has ended as it was asked to: it waits for those with whom it has come together.
const GRACE_AFTER_STOP: Duration = Duration::from_secs(2);

const LOOK: Duration = Duration::from_millis(20);

/// What is run.
pub struct Plan {
    /// The program with the arguments of each process.
    pub command: Vec<OsString>,
    /// What the environment of every process has besides.
    pub environment: Vec<(String, String)>,
    /// What that of all but the first has.
    pub of_followers: Vec<(String, String)>,
    /// How many processes.
    pub processes: usize,
    /// Arguments that count for the first start alone.
    pub first_only: &'static [&'static str],
    /// Whether they can be started again: what came on standard input does not come again.
    pub repeatable: bool,
}

/// Runs the processes until process 0 has ended for good. `stop` asks it to.
///
/// # Errors
///
/// When a process cannot be started.
pub fn supervise(mut plan: Plan, stop: &AtomicBool) -> io::Result<ExitStatus> {
    let mut pause = PAUSE_MIN;
    loop {
        let began = Instant::now();
        let leader = run(&plan, stop)?;
        plan.command.retain(|word| !plan.first_only.iter().any(|only| word == only));
        let lost = matches!(leader.code(), None | Some(3));
        let stopped = stop.load(Ordering::Acquire);
        if !lost || stopped || !plan.repeatable {
            return Ok(status_of(leader, stopped));
        }
        if began.elapsed() >= WELL {
            pause = PAUSE_MIN;
        }
        tracing::warn!(in_s = pause.as_secs(), "a process was lost; all are started again, from the last checkpoint");
        let until = Instant::now() + pause;
        while Instant::now() < until {
            if stop.load(Ordering::Acquire) {
                return Ok(status_of(leader, true));
            }
            sleep(LOOK);
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// The status that stands for how process 0 ended. The signal may come before it can take one: then it had done nothing.
fn status_of(leader: Ended, stopped: bool) -> ExitStatus {
    if stopped && leader.signal() == Some(Signal::TERM.as_raw()) {
        return ExitStatus::Done;
    }
    let known = [
        ExitStatus::Done,
        ExitStatus::CheckFailed,
        ExitStatus::Usage,
        ExitStatus::Refused,
        ExitStatus::Corrupt,
        ExitStatus::Bug,
    ];
    let code = leader.code();
    known.into_iter().find(|status| code == Some(*status as i32)).unwrap_or(ExitStatus::Unavailable)
}

/// Children that are killed when nobody waits for them any more.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs all processes once; returns how the first one ended.
fn run(plan: &Plan, stop: &AtomicBool) -> io::Result<Ended> {
    let hosts = free_addresses(plan.processes)?.join(",");
    let mut children = Children(Vec::new());
    for process in 0..plan.processes {
        let child = start(plan, process, &hosts)?;
        tracing::info!(process, pid = child.id(), "started");
        children.0.push(child);
    }
    let (mut ended, mut since, mut told) = (vec![None; plan.processes], None, false);
    loop {
        for (child, ended) in children.0.iter_mut().zip(&mut ended) {
            if ended.is_none() {
                *ended = child.try_wait()?;
            }
        }
        if let Some(leader) = ended.first().copied().flatten().filter(|_| ended.iter().all(Option::is_some)) {
            return Ok(leader);
        }
        let leader = children.0.first().filter(|_| ended.first().is_some_and(Option::is_none));
        if let Some(leader) = leader.filter(|_| stop.load(Ordering::Acquire) && !told) {
            told = true;
            // If it has just ended, it needs no telling.
            let _ = kill_process(Pid::from_child(leader), Signal::TERM);
        }
        let grace = if told { GRACE_AFTER_STOP } else { GRACE };
        if leaves_others_behind(&ended) && since.get_or_insert_with(Instant::now).elapsed() > grace {
            children.0.iter_mut().for_each(|child| drop(child.kill()));
        }
        sleep(LOOK);
    }
}

/// Whether a process has ended after which the others should end soon. Process 0 still reads the tables back when the
/// others are through.
fn leaves_others_behind(ended: &[Option<Ended>]) -> bool {
    let failed = ended.iter().flatten().any(|ended| !ended.success());
    failed || ended.first().is_some_and(Option::is_some)
}

fn start(plan: &Plan, process: usize, hosts: &str) -> io::Result<Child> {
    let mut words = plan.command.iter();
    let program = words.next().ok_or_else(|| io::Error::other("no program"))?;
    let mut command = Command::new(program);
    // In a group of its own: a signal of the terminal comes to the supervisor alone, which passes it on once.
    command.args(words).process_group(0);
    command.envs(plan.environment.iter().map(|(key, value)| (key, value)));
    let own =
        [("PROCESSES", plan.processes.to_string()), ("PROCESS", process.to_string()), ("HOSTS", hosts.to_owned())];
    for (key, value) in own.into_iter().chain([("LISTEN", String::new())]) {
        command.env(format!("TIDEMARK__CLUSTER__{key}"), value);
    }
    if process > 0 {
        command.envs(plan.of_followers.iter().map(|(key, value)| (key, value)));
        command.arg("--supervised").stdin(Stdio::piped());
    }
    command.spawn()
}

/// So many addresses of this machine that nobody listens on now.
fn free_addresses(count: usize) -> io::Result<Vec<String>> {
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<Vec<_>>>()?;
    listeners.iter().map(|listener| listener.local_addr().map(|address| address.to_string())).collect()
}

/// In a process that was started by a supervisor: ends the process when that one is gone.
///
/// # Errors
///
/// When no thread can be started.
pub fn end_with_it() -> io::Result<()> {
    let wait = || {
        // Nothing is ever written to it.
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        ending::end(ExitStatus::Unavailable, "the supervisor of this process is gone, so it ends as well")
    };
    Builder::new().name("supervised".to_owned()).spawn(wait).map(drop)
}
