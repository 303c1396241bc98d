//! Where to interrupt a call: at the first and the last request of each kind, and at some of the others. Each time on a
//! fresh copy of the same table.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::store::{Judged, Kind, Verdict};

/// Others than the first and the last of a kind are chosen by this, and by chance otherwise.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
/// One in so many of the other requests is chosen.
const ONE_IN: u64 = 16;

/// A request that a call makes: whether it changes anything, and its number among those that do, or do not. How often a call
/// reads depends on time, so that a number among all would not be that of the same request each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) number: usize,
    pub(crate) writes: bool,
}

/// The requests of a call, in order.
#[derive(Clone, Default)]
pub(crate) struct Recorded(Arc<Mutex<Vec<(Kind, String)>>>);

impl Recorded {
    /// Records what the store is asked for from now on.
    pub(crate) fn on(store: &Judged) -> Self {
        let recorded = Recorded::default();
        let requests = recorded.clone();
        store.judge(move |kind, path| {
            requests.0.lock().unwrap().push((kind, class(path)));
            Verdict::Pass
        });
        recorded
    }

    pub(crate) fn kinds(&self) -> Vec<Kind> {
        self.0.lock().unwrap().iter().map(|(kind, _)| *kind).collect()
    }

    pub(crate) fn points(&self) -> Vec<Point> {
        let requests = self.0.lock().unwrap();
        let mut last: HashMap<_, usize> = HashMap::new();
        for (number, request) in requests.iter().enumerate() {
            last.insert(request, number);
        }
        let (mut seen, mut random) = (HashMap::new(), SEED);
        let (mut chosen, mut made) = (Vec::new(), [0, 0]);
        for (number, request) in requests.iter().enumerate() {
            let writes = changes(request.0);
            let count = &mut made[usize::from(writes)];
            *count += 1;
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let first = seen.insert(request, number).is_none();
            if first || last[request] == number || (random >> 33) % ONE_IN == 0 {
                chosen.push(Point { number: *count - 1, writes });
            }
        }
        chosen
    }
}

/// Whether a request changes anything.
pub(crate) fn changes(kind: Kind) -> bool {
    !matches!(kind, Kind::Get | Kind::List)
}

/// A path without what tells files of the same kind apart.
fn class(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let (place, kind) = (path.contains("_delta_log"), name.rsplit('.').next().unwrap_or(name));
    format!("{place} {} {kind}", name.contains("checkpoint"))
}

/// A table that is made once and copied often.
pub(crate) struct Template(TempDir);

impl Template {
    pub(crate) fn of(dir: TempDir) -> Self {
        Template(dir)
    }

    pub(crate) fn dir(&self) -> &TempDir {
        &self.0
    }

    pub(crate) fn copy(&self) -> TempDir {
        let dir = TempDir::new().unwrap();
        copy(self.0.path(), dir.path());
        dir
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}
