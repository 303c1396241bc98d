//! A configuration in the making: layers are laid over each other, and every problem is kept until all are known.

use super::kind::{Kind, Raw, Value};
use super::layers::Given;
use super::place::without_secrets;
use super::problem::{Origin, Problem};
use super::secret::MASK;
use super::table::{SETTINGS, Setting, find};
use std::collections::{BTreeMap, BTreeSet};

/// Names closer than this (0 to 1) are suggested for a key that does not exist.
const SIMILAR_ENOUGH: f64 = 0.7;

/// A checked value and the layer that gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct Assigned {
    /// The value.
    pub value: Value,
    /// Where it came from.
    pub origin: Origin,
}

/// The values so far, and what was wrong so far.
#[derive(Debug, Default)]
pub struct Draft {
    /// The value of each key that has one.
    pub values: BTreeMap<&'static str, Assigned>,
    /// What is wrong, in order of the layers.
    pub problems: Vec<Problem>,
    /// Keys with a problem: what follows from their values is not judged.
    faulty: BTreeSet<&'static str>,
}

impl Draft {
    /// Lays a layer over those before. A key given twice in one layer is refused: which one is meant is unclear.
    pub fn lay(&mut self, layer: Vec<Given>) {
        let mut seen: BTreeMap<&'static str, Origin> = BTreeMap::new();
        for Given { key, raw, origin } in layer {
            let Some(setting) = find(&key) else {
                self.problems.push(unknown(key, origin));
                continue;
            };
            if let Some(other) = seen.insert(setting.key, origin.clone()) {
                self.refuse(setting, &raw, origin, format!("already given by {other}"));
                continue;
            }
            match setting.kind.check(&raw) {
                Some(value) if setting.secret && value != Value::Empty && matches!(origin, Origin::Flag(_)) => {
                    let complaint = "every user of this machine can see it there; give it by environment or file";
                    self.refuse(setting, &raw, origin, complaint.to_owned());
                }
                Some(value) => {
                    self.values.insert(setting.key, Assigned { value, origin });
                }
                None => self.refuse(setting, &raw, origin, format!("allowed: {}", setting.kind.allowed())),
            }
        }
        self.imply_source(&seen);
    }

    /// Inputs say that files are meant, unless their own layer says otherwise.
    fn imply_source(&mut self, seen: &BTreeMap<&'static str, Origin>) {
        let Some(origin) = seen.get("source.inputs").filter(|_| !seen.contains_key("source.kind")) else { return };
        if self.values.get("source.inputs").is_some_and(|inputs| inputs.value != Value::List(Vec::new())) {
            let origin = Origin::Implied("source.inputs", Box::new(origin.clone()));
            self.values.insert("source.kind", Assigned { value: Value::Text("file".to_owned()), origin });
        }
    }

    /// Notes a problem with the value of a key.
    pub(super) fn refuse(&mut self, setting: &'static Setting, raw: &Raw, origin: Origin, complaint: String) {
        self.faulty.insert(setting.key);
        let value = if setting.secret { MASK.to_owned() } else { without_secrets(&raw.to_string()) };
        self.problems.push(Problem { subject: format!("{} = {value}", setting.key), origin, complaint });
    }

    /// Judges what several keys are together; keys that already have a problem are left alone.
    pub fn check_together(&mut self) {
        self.check_shares();
        self.check_inputs();
        self.check_repair();
        self.check_eventhubs();
        self.check_azure();
        self.check_cluster();
        self.check_http();
        self.check_traces();
    }

    /// The value of a key, if nothing is wrong with it.
    pub(super) fn sound(&self, key: &str) -> Option<&Assigned> {
        self.values.get(key).filter(|_| !self.faulty.contains(key))
    }

    fn check_shares(&mut self) {
        let is_share = |setting: &&Setting| setting.kind == Kind::Share && setting.path().0 == "generator";
        let shares: Vec<(&str, &Assigned)> =
            SETTINGS.iter().filter(is_share).filter_map(|s| Some((s.key, self.sound(s.key)?))).collect();
        let sum: f64 =
            shares.iter().map(|(_, share)| if let Value::Share(share) = share.value { share } else { 0.0 }).sum();
        // Ten shares of 0.1 add up to a little more or less than 1.
        if sum <= 1.0 + 1e-9 {
            return;
        }
        let subject: Vec<String> =
            shares.iter().map(|(key, share)| format!("{key} = {}", share.value.to_toml())).collect();
        let uppermost = shares.iter().map(|(_, share)| &share.origin).find(|origin| **origin != Origin::Default);
        let origin = uppermost.cloned().unwrap_or(Origin::Default);
        let complaint = "shares of the same events; allowed: a sum of at most 1".to_owned();
        self.problems.push(Problem { subject: subject.join(", "), origin, complaint });
    }

    fn check_traces(&mut self) {
        let Some(endpoint) = self.sound("traces.endpoint").filter(|endpoint| endpoint.value != Value::Empty) else {
            return;
        };
        if !cfg!(feature = "traces") {
            let complaint = "this program was built without traces; build it with --features traces, or leave it empty";
            let subject = format!("traces.endpoint = {}", endpoint.value.to_toml());
            let (origin, complaint) = (endpoint.origin.clone(), complaint.to_owned());
            self.problems.push(Problem { subject, origin, complaint });
        }
    }

    fn check_repair(&mut self) {
        let (Some(what), Some(kept)) = (self.sound("sink.foreign_changes"), self.sound("checkpoint.enabled")) else {
            return;
        };
        if what.value == Value::Text("repair".to_owned()) && kept.value == Value::Switch(false) {
            self.problems.push(Problem {
                subject: "sink.foreign_changes = \"repair\"".to_owned(),
                origin: what.origin.clone(),
                complaint: "tables are written anew from a checkpoint, and checkpoint.enabled = false keeps none; allowed here: \
                            report or refuse"
                    .to_owned(),
            });
        }
    }

    fn check_inputs(&mut self) {
        let (Some(kind), Some(inputs)) = (self.sound("source.kind"), self.sound("source.inputs")) else { return };
        let files = kind.value == Value::Text("file".to_owned());
        let empty = inputs.value == Value::List(Vec::new());
        let problem = match (&kind.origin, &inputs.origin) {
            (origin, _) if files && empty => Problem {
                subject: "source.inputs".to_owned(),
                origin: origin.clone(),
                complaint: "source.kind = \"file\" needs at least one input".to_owned(),
            },
            (Origin::Flag(_), Origin::Flag(_)) if !files && !empty => Problem {
                subject: format!("source.inputs = {}", inputs.value.to_toml()),
                origin: inputs.origin.clone(),
                complaint: "source.kind = \"generate\" reads no inputs; leave out one of the two".to_owned(),
            },
            _ => return,
        };
        self.problems.push(problem);
    }
}

fn unknown(key: String, origin: Origin) -> Problem {
    let complaint = match (suggestion(&key), &origin) {
        (Some(setting), Origin::Environment(_)) => format!("unknown key; did you mean {}?", setting.environment()),
        (Some(setting), _) => format!("unknown key; did you mean {}?", setting.key),
        (None, _) => "unknown key; `tidemark config show` lists them all".to_owned(),
    };
    Problem { subject: key, origin, complaint }
}

/// The setting that was probably meant: the right name in the wrong section counts as close.
fn suggestion(key: &str) -> Option<&'static Setting> {
    let key = key.trim_start_matches("TIDEMARK__").replace("__", ".").to_lowercase();
    let name = key.rsplit('.').next().unwrap_or(&key);
    let likeness = |setting: &Setting| {
        let same_name = if setting.path().1 == name { 0.9 } else { 0.0 };
        strsim::normalized_damerau_levenshtein(setting.key, &key).max(same_name)
    };
    let closest = SETTINGS.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(closest) >= SIMILAR_ENOUGH).then_some(closest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn flag(key: &str, value: &str) -> Given {
        Given { key: key.to_owned(), raw: Raw::Word(value.to_owned()), origin: Origin::Flag(format!("--{key}")) }
    }

    fn problems(layers: Vec<Vec<Given>>) -> Vec<String> {
        let mut draft = Draft::default();
        layers.into_iter().for_each(|layer| draft.lay(layer));
        draft.check_together();
        draft.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_unknown_key_comes_with_the_closest_one() {
        for (wrong, right) in [
            ("epochs.triger", "epochs.trigger"),
            ("epoch.trigger", "epochs.trigger"),
            ("sink.rate", "generator.rate"),
            ("workers", "runtime.workers"),
            ("dedup.watermark-delay", "dedup.watermark_delay"),
        ] {
            let complaint = unknown(wrong.to_owned(), Origin::Default).complaint;
            assert_eq!(complaint, format!("unknown key; did you mean {right}?"), "{wrong}");
        }
        let variable = Origin::Environment("TIDEMARK__EPOCHS__TRIGER".to_owned());
        let problem = unknown("epochs.triger".to_owned(), variable);
        assert!(problem.complaint.ends_with("did you mean TIDEMARK__EPOCHS__TRIGGER?"));
        assert!(unknown("kafka.brokers".to_owned(), Origin::Default).complaint.contains("config show"));
    }

    #[test]
    fn one_layer_gives_a_key_once() {
        let found = problems(vec![vec![flag("log.level", "info"), flag("log.level", "warn")]]);
        assert_eq!(found, ["log.level = \"warn\" (flag --log.level): already given by flag --log.level"]);
    }

    #[test]
    fn inputs_mean_files_unless_their_own_layer_says_otherwise() {
        let mut draft = Draft::default();
        draft.lay(vec![flag("source.kind", "generate")]);
        draft.lay(vec![flag("source.inputs", "a")]);
        assert_eq!(draft.values["source.kind"].value, Value::Text("file".to_owned()));
        draft.lay(vec![flag("source.kind", "generate")]);
        assert_eq!(draft.values["source.kind"].value, Value::Text("generate".to_owned()));
        draft.lay(vec![flag("source.inputs", "")]);
        assert_eq!(draft.values["source.kind"].value, Value::Text("generate".to_owned()), "no inputs say nothing");
    }

    #[test]
    fn source_and_inputs_must_fit() {
        let both = problems(vec![vec![flag("source.kind", "generate"), flag("source.inputs", "a")]]);
        assert!(both.len() == 1 && both[0].contains("reads no inputs"), "{both:?}");
        let none = problems(vec![vec![flag("source.kind", "file"), flag("source.inputs", "")]]);
        assert!(none.len() == 1 && none[0].contains("needs at least one input"), "{none:?}");
        // A wrong input must not be called a missing one as well.
        let default = vec![flag("source.inputs", "")];
        let wrong = problems(vec![default, vec![flag("source.kind", "file"), flag("source.inputs", "s3://x")]]);
        assert!(wrong.len() == 1 && wrong[0].contains("a list of files"), "{wrong:?}");
    }

    #[test]
    fn tables_are_written_anew_from_checkpoints() {
        let both = vec![flag("sink.foreign_changes", "repair"), flag("checkpoint.enabled", "false")];
        let found = problems(vec![both]);
        assert!(found.len() == 1 && found[0].contains("allowed here: report or refuse"), "{found:?}");
        assert_eq!(problems(vec![vec![flag("sink.foreign_changes", "repair")]]), Vec::<String>::new());
    }

    #[test]
    fn an_endpoint_for_traces_needs_a_build_with_them() {
        let found = problems(vec![vec![flag("traces.endpoint", "http://127.0.0.1:4318")]]);
        let refused = found.len() == 1 && found[0].contains("built without traces") && found[0].contains("--features");
        assert_eq!(refused, !cfg!(feature = "traces"), "{found:?}");
        assert_eq!(problems(vec![vec![flag("traces.endpoint", "")]]), Vec::<String>::new());
    }

    #[test]
    fn shares_add_up_to_at_most_one() {
        let shares = |late| vec![vec![flag("generator.invalid", "0.9"), flag("generator.late", late)]];
        assert_eq!(problems(shares("0.1")), Vec::<String>::new());
        let found = problems(shares("0.2"));
        assert!(found.len() == 1 && found[0].contains("generator.invalid = 0.9, generator.late = 0.2"), "{found:?}");
    }

    #[test]
    fn secrets_are_masked_in_problems() {
        static KEY: std::sync::LazyLock<Setting> = std::sync::LazyLock::new(|| find("log.level").unwrap().secret());
        let mut draft = Draft::default();
        draft.refuse(&KEY, &Raw::Word("hunter2".to_owned()), Origin::Default, "no".to_owned());
        assert_eq!(draft.problems[0].subject, "log.level = ****");
    }
}
