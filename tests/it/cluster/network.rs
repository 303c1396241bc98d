//! Two processes on two hosts, as far as one machine can be two: network namespaces, and a link that goes down.

use std::process::Command;
use std::time::{Duration, Instant};

use super::crew::{SECRET, ended_because, finish};
use crate::crash::job::{EAGER, Job};
use crate::data::eventful;
use crate::oracle::Rules;
use crate::program::{Running, skipped};

/// Two namespaces, joined by a cable. They are gone with this.
struct Hosts {
    names: [String; 2],
}

fn ip(args: &str) -> bool {
    Command::new("ip").args(args.split_whitespace()).output().is_ok_and(|done| done.status.success())
}

impl Hosts {
    /// None where this machine does not let us.
    fn new() -> Option<Hosts> {
        let id = std::process::id();
        let hosts = Hosts { names: [format!("tmark{id}a"), format!("tmark{id}b")] };
        let [a, b] = &hosts.names;
        let made = ip(&format!("netns add {a}"))
            && ip(&format!("netns add {b}"))
            && ip(&format!("link add cable netns {a} type veth peer name cable netns {b}"));
        let up = |name: &str, address: &str| {
            ip(&format!("-n {name} addr add {address}/24 dev cable"))
                && ip(&format!("-n {name} link set cable up"))
                && ip(&format!("-n {name} link set lo up"))
        };
        (made && up(a, "192.0.2.1") && up(b, "192.0.2.2")).then_some(hosts)
    }

    fn cut(&self) {
        assert!(ip(&format!("-n {} link set cable down", self.names[0])));
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            // One that was never made is not there.
            ip(&format!("netns del {name}"));
        }
    }
}

#[test]
fn a_link_that_goes_down_ends_both_in_about_the_time_that_is_set() {
    let Some(hosts) = Hosts::new() else { return skipped("no network namespaces here: needs root and ip") };
    let job = Job::new(&eventful(91, &[400, 400]), Rules::epochs_of(20), "");
    job.case.file("secret", SECRET);
    let start = |process: usize, fail_points: &str| -> Running {
        let flags = format!(
            "--processes 2 --process {process} --hosts 192.0.2.1:7400,192.0.2.2:7400 --set \
             cluster.secret_file=secret --set cluster.lost_after=2s {EAGER}"
        );
        job.start_in(&["ip", "netns", "exec", &hosts.names[process]], 1, &flags, fail_points)
    };
    let mut zero = start(0, "group-published=2*off->return");
    let one = start(1, "");
    zero.await_line("stopped at group-published");
    let cut = Instant::now();
    hosts.cut();
    ended_because(&zero.ended(), 3, &["process 1 (192.0.2.2:7400) is lost", "no sign of life for 2s"]);
    ended_because(&one.ended(), 3, &["process 0 (192.0.2.1:7400) is lost", "no sign of life for 2s"]);
    let took = cut.elapsed();
    assert!(took > Duration::from_secs(1) && took < Duration::from_secs(30), "{took:?}");
    finish(&job, 2, 1);
    job.check();
}
