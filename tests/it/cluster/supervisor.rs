//! `tidemark cluster`: starts the processes, starts them again, and leaves nobody behind.

use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use super::crew::{PATIENT, finish};
use crate::crash::job::{EAGER, Job};
use crate::data::eventful;
use crate::oracle::Rules;
use crate::program::{Running, tidemark};

fn job(epochs: usize) -> Job {
    Job::new(&eventful(81, &[12 * epochs, 12 * epochs - 9]), Rules::epochs_of(24), "")
}

fn start(job: &Job, processes: usize, more: &str, fail_points: &str) -> Running {
    let processes = processes.to_string();
    let mut args = vec!["cluster", "--input", "in", "--output", "out", "--workers", "1", "--processes", &processes];
    let rules = job.rules.flags();
    args.extend(rules.iter().map(String::as_str));
    args.extend([EAGER, PATIENT, more].iter().flat_map(|words| words.split_whitespace()));
    Running::start(tidemark(job.case.root(), args).env("FAILPOINTS", fail_points).stdin(Stdio::null()))
}

/// The process ids of the children, as the supervisor told of them.
fn children(log: &str) -> Vec<String> {
    let told = log.lines().filter(|line| line.contains("started") && line.contains("pid="));
    told.map(|line| line.split("pid=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()).collect()
}

fn signal(name: &str, pid: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), pid]).status().unwrap().success());
}

#[test]
fn it_runs_to_the_end_with_the_summary_of_process_0() {
    let job = job(8);
    let ended = start(&job, 3, "", "").ended().well();
    assert!(ended.stdout.contains("M1 net flow"), "{}", ended.stdout);
    assert_eq!(ended.stderr.matches("everything is published").count(), 1, "process 0 alone tells: {}", ended.stderr);
    job.check();
    let again = start(&job, 2, "", "").ended().well();
    assert!(again.stderr.contains("nothing to do"), "{}", again.stderr);
    // Its status is that of process 0.
    let other = start(&job, 2, "--set pipeline.name=other", "").ended();
    assert_eq!(other.code(), 5, "{}", other.stderr);
    assert!(other.stderr.contains("pipeline.name was tidemark, now other"), "{}", other.stderr);
    let refused = start(&job, 2, "--hosts 127.0.0.1:1,127.0.0.1:2", "").ended();
    refused.fails_with(2, &["cluster.hosts", "leave it out"]);
}

#[test]
fn each_process_serves_a_port_of_its_own() {
    let job = job(8);
    // Free in a row, but for those who take one meanwhile.
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let first = (20_000..60_000).step_by(7).find(|port| is_free(*port) && is_free(port + 1)).unwrap();
    let ended = start(&job, 2, &format!("--console 127.0.0.1:{first}"), "").ended().well();
    // The other one tells of warnings alone, and would have ended all, had it found no port.
    assert!(ended.stderr.contains(&format!("127.0.0.1:{first}/")), "{}", ended.stderr);
    job.check();
}

#[test]
fn a_process_that_is_killed_is_started_again_with_all_others() {
    let job = job(30);
    // The first time, process 0 waits in the middle for longer than this test takes to kill the other.
    let mut running = start(&job, 2, "", "group-published=2*off->1*return(600000)->off");
    running.await_line("stopped at group-published");
    let pids = children(running.log());
    assert_eq!(pids.len(), 2, "{}", running.log());
    signal("KILL", &pids[1]);
    assert!(running.says_times(2, "stopped at group-published"), "{}", running.log());
    signal("KILL", &children(running.log())[2]);
    assert!(running.says_times(3, "stopped at group-published"), "{}", running.log());
    assert_eq!(running.log().matches("all are started again").count(), 2, "{}", running.log());
    assert_eq!(children(running.log()).len(), 6, "{}", running.log());
    running.signal("KILL");
    // Whoever is left sees that the supervisor is gone. They write to the same log, which ends once nobody does.
    assert_eq!(running.ended().status.signal(), Some(9));
    finish(&job, 2, 1);
    job.check();
}

#[test]
fn a_signal_while_the_processes_come_together_ends_them_at_once() {
    for already in 1..=3 {
        let job = job(3);
        let mut running = start(&job, 3, "", "");
        assert!(running.says_times(already, "started"), "{}", running.log());
        running.signal("TERM");
        running.ended().well();
        finish(&job, 2, 1);
        job.check();
    }
}

#[test]
fn a_signal_to_the_supervisor_drains_all() {
    let job = job(40);
    let mut running = start(&job, 2, "", "group-published=2*off->1*return(300)->off");
    running.await_line("stopped at group-published");
    running.signal("TERM");
    let ended = running.ended().well();
    // The log ends once none of them writes to it any more.
    assert!(ended.stderr.contains("stopped as asked"), "{}", ended.stderr);
    finish(&job, 2, 1);
    job.check();
}
