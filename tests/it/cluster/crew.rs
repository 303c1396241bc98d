//! The processes of one pipeline, as children of the test.

use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;

use crate::crash::job::Job;
use crate::program::{Ended, Running};

/// So many addresses that nobody listens on.
pub(crate) fn free_addresses(count: usize) -> Vec<String> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
}

/// Where the processes of one run find each other, and what they know.
pub(crate) struct Places {
    pub(crate) addresses: Vec<String>,
    pub(crate) secret: &'static str,
}

/// On a busy machine nobody is lost or late who is only slow.
pub(crate) const PATIENT: &str = "--set cluster.lost_after=1m --set cluster.join_timeout=10m";

/// A shared secret, for a file.
pub(crate) const SECRET: &str = "a secret of these tests, 37 bytes long";

impl Places {
    pub(crate) fn of(processes: usize) -> Places {
        Places { addresses: free_addresses(processes), secret: "secret" }
    }

    /// The flags of one process.
    pub(crate) fn flags(&self, process: usize) -> String {
        format!("{} {PATIENT}", self.hasty_flags(process))
    }

    /// The same without a word about how long others are waited for.
    fn hasty_flags(&self, process: usize) -> String {
        let (processes, hosts) = (self.addresses.len(), self.addresses.join(","));
        let secret = self.secret;
        format!("--processes {processes} --process {process} --hosts {hosts} --set cluster.secret_file={secret}")
    }

    /// Starts one process of a job, which finds the secret in the job's folder.
    pub(crate) fn start(&self, job: &Job, process: usize, workers: usize, more: &str, fail_points: &str) -> Running {
        // Others may be reading it.
        if !job.case.path("secret").exists() {
            job.case.file("secret", SECRET);
        }
        let hasty = more.contains("cluster.lost_after") || more.contains("cluster.join_timeout");
        let flags = if hasty { self.hasty_flags(process) } else { self.flags(process) };
        job.start(workers, &format!("{flags} {more}"), fail_points)
    }
}

/// Starts all processes of a job, the last one first.
pub(crate) fn start_all(job: &Job, processes: usize, workers: usize, more: &str) -> Vec<Running> {
    let places = Places::of(processes);
    let mut crew: Vec<_> = (0..processes).rev().map(|process| places.start(job, process, workers, more, "")).collect();
    crew.reverse();
    crew
}

/// Waits for the end of all, which must be a good one. Returns how they ended.
pub(crate) fn all_well(crew: Vec<Running>) -> Vec<Ended> {
    crew.into_iter().map(|process| process.ended().well()).collect()
}

/// Runs a job in so many processes to its end.
pub(crate) fn finish(job: &Job, processes: usize, workers: usize) -> Vec<Ended> {
    all_well(start_all(job, processes, workers, "--checkpoint-interval 0s"))
}

/// A process that ended because of another one: that status, and one line of the log, an error with these words.
pub(crate) fn ended_because(ended: &Ended, status: i32, words: &[&str]) {
    assert_eq!(ended.status.signal(), None, "{}", ended.stderr);
    assert_eq!(ended.code(), status, "{}{}", ended.stdout, ended.stderr);
    let errors: Vec<&str> = ended.stderr.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors.len(), 1, "{}", ended.stderr);
    assert!(words.iter().all(|word| errors[0].contains(word)), "{words:?} not all in {}", errors[0]);
    assert!(!ended.stderr.contains("panicked") && !ended.stderr.contains("bug in Tidemark"), "{}", ended.stderr);
}
