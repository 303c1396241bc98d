//! What a configuration asks for at once, against what there is: a machine that runs out of memory ends another program first.

use std::fs;
use std::path::{Path, PathBuf};

use super::units::format_size;
use super::{Effective, Origin};

/// Bytes for each id that room is made for.
const BYTES_PER_ID: u64 = 28;

/// Refuses settings for which there would have to be more memory than there is, by name, one line for each. `machines` of one
/// process or several share what the settings ask for.
pub fn shortages(effective: &Effective, machines: usize) -> Vec<String> {
    available().map_or_else(Vec::new, |bytes| beyond(effective, machines, bytes))
}

fn beyond(effective: &Effective, machines: usize, available: u64) -> Vec<String> {
    let config = &effective.config;
    let machines = u64::try_from(machines).unwrap_or(u64::MAX).max(1);
    let origin = |key: &str| effective.origin(key).cloned().unwrap_or(Origin::Default);
    let (has, ids, bytes) =
        (in_gib(available), config.dedup.expected_ids / machines, config.epochs.max_bytes_in_flight / machines);
    let mut lines = Vec::new();
    let room = ids.saturating_mul(BYTES_PER_ID);
    if room > available {
        let most = (available / BYTES_PER_ID).saturating_mul(machines);
        lines.push(format!(
            "dedup.expected_ids = {} ({}): room for them takes {}, and there is {has}; allowed here: at most {most}",
            config.dedup.expected_ids,
            origin("dedup.expected_ids"),
            in_gib(room),
        ));
    }
    if bytes > available {
        lines.push(format!(
            "epochs.max_bytes_in_flight = {} ({}): there is {has}; allowed here: at most {}",
            in_gib(config.epochs.max_bytes_in_flight),
            origin("epochs.max_bytes_in_flight"),
            format_size((available >> 20 << 20).saturating_mul(machines)),
        ));
    }
    lines
}

fn in_gib(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) >> 30;
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

/// Bytes that this process may have: those of the machine, or fewer where its control group says so. None where that cannot be
/// found out.
fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let group =
        fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| of_groups(&text, Path::new("/sys/fs/cgroup")));
    machine.into_iter().chain(group).min()
}

/// The memory of a machine, as `/proc/meminfo` tells it.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

/// The least limit of a process's control groups, as `/proc/self/cgroup` names them: of version 2 (`0::/path`), and of the
/// memory controller of version 1. Every group above it counts as well.
fn of_groups(cgroup: &str, root: &Path) -> Option<u64> {
    let limits = cgroup.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => (PathBuf::new(), ""),
        };
        let groups = Path::new(path.trim_start_matches('/')).ancestors().map(|group| root.join(group).join(file));
        groups.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).collect::<Vec<u64>>()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::Layers;

    #[test]
    fn the_least_limit_counts() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       24577340 kB\n"), Some(24_577_340 * 1_024));
        assert_eq!(total("nothing"), None);
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("a/b/memory.max", "max\n");
        put("a/memory.max", "5000\n");
        put("memory/c/memory.limit_in_bytes", "4000\n");
        assert_eq!(of_groups("0::/a/b\n", root.path()), Some(5_000));
        assert_eq!(of_groups("0::/a/b\n4:cpu,memory:/c\n1:name=x:/c\n", root.path()), Some(4_000));
        assert_eq!(of_groups("0::/elsewhere\n", root.path()), None);
    }

    #[test]
    fn what_takes_more_than_there_is_is_refused_by_name() {
        let effective = Effective::load(Layers::default()).unwrap();
        assert_eq!(beyond(&effective, 1, 4 << 30), Vec::<String>::new());
        let lines = beyond(&effective, 1, 1 << 20);
        let words = ["dedup.expected_ids = 1000000 (", "at most 37449"];
        assert!(words.iter().all(|word| lines[0].contains(word)) && lines.len() == 2, "{lines:?}");
        assert!(lines[1].starts_with("epochs.max_bytes_in_flight = "), "{lines:?}");
    }
}
