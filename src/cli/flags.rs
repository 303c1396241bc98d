//! The flags that are settings, made from the table of settings: name, help, default and completion.
//!
//! A value is taken as it is written. Whether it is allowed is for the configuration to say, which reports what is wrong
//! in all layers at once; the command line knows the allowed words for help and completion only.

use crate::config::kind::{Kind, Raw};
use crate::config::table::{FlagOf, SETTINGS, Setting};
use crate::config::{Given, Origin, VerbDefaults};
use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueHint};
use std::{ffi::OsStr, marker::PhantomData};

/// Which settings are flags of a verb, and what the verb changes in their defaults.
pub trait Takes {
    /// Whether a flag of these verbs is among them.
    fn takes(verbs: FlagOf) -> bool;
    /// The defaults that differ for this verb.
    const DEFAULTS: Option<VerbDefaults> = None;
}

/// The flags of `run`, and of the verbs that look at what it would do.
#[derive(Debug, Clone, Copy)]
pub struct OfRun;

impl Takes for OfRun {
    fn takes(verbs: FlagOf) -> bool {
        verbs != FlagOf::Generate
    }
}

/// The flags of `cluster`: those of `run`.
#[derive(Debug, Clone, Copy)]
pub struct OfCluster;

impl Takes for OfCluster {
    fn takes(verbs: FlagOf) -> bool {
        OfRun::takes(verbs)
    }

    /// More than one process, whose secret is drawn at each start.
    const DEFAULTS: Option<VerbDefaults> =
        Some(("cluster", &[("cluster.processes", "2"), ("cluster.secret", "drawn at each start")]));
}

/// The flags of `generate`.
#[derive(Debug, Clone, Copy)]
pub struct OfGenerate;

impl Takes for OfGenerate {
    fn takes(verbs: FlagOf) -> bool {
        verbs != FlagOf::Run
    }

    /// A file is written at full speed, and has an end.
    const DEFAULTS: Option<VerbDefaults> =
        Some(("generate", &[("generator.rate", "0"), ("generator.events", "100000")]));
}

/// The flags of `broker`: of the settings, those alone that every verb has.
#[derive(Debug, Clone, Copy)]
pub struct OfBroker;

impl Takes for OfBroker {
    fn takes(verbs: FlagOf) -> bool {
        verbs == FlagOf::Every
    }
}

/// The flags that a verb takes, as given: those of single settings, and `--set`.
#[derive(Debug, Clone)]
pub struct SettingFlags<V> {
    given: Vec<Given>,
    verb: PhantomData<V>,
}

impl<V> SettingFlags<V> {
    /// The layer of the flags.
    pub fn given(&self) -> Vec<Given> {
        self.given.clone()
    }
}

fn flags<V: Takes>() -> impl Iterator<Item = (&'static Setting, &'static str)> {
    let of_verb = |setting: &'static Setting| {
        setting.flag.and_then(|(name, verbs)| if V::takes(verbs) { Some((setting, name)) } else { None })
    };
    SETTINGS.iter().filter_map(of_verb)
}

/// Takes every word, and knows which are allowed.
#[derive(Clone)]
struct Words(&'static [&'static str]);

impl TypedValueParser for Words {
    type Value = String;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        if self.0.is_empty() { None } else { Some(Box::new(self.0.iter().map(PossibleValue::new))) }
    }
}

/// The default in effect for a verb, as it is shown in help; nothing where it says nothing.
fn default_of<V: Takes>(setting: &Setting) -> Option<&'static str> {
    let of_verb = V::DEFAULTS.and_then(|(_, defaults)| defaults.iter().find(|(key, _)| *key == setting.key));
    let default = of_verb.map_or(setting.doc()?.default.trim_matches('"'), |(_, value)| value);
    (!matches!(default, "" | "[]" | "false")).then_some(default)
}

fn arg<V: Takes>(setting: &'static Setting, name: &'static str) -> Arg {
    let (section, _) = setting.path();
    let meaning = setting.doc().map_or("", |doc| doc.meaning.as_str());
    let first = meaning.split_inclusive(". ").next().unwrap_or(meaning).trim_end().trim_end_matches('.');
    let default = default_of::<V>(setting).map_or(String::new(), |default| format!(" [default: {default}]"));
    let words: &[&str] = if let Kind::Choice(words) = setting.kind { words } else { &[] };
    let allowed = setting.kind.allowed();
    let arg = Arg::new(setting.key)
        .long(name)
        .value_name(setting.kind.value_name())
        .value_parser(Words(words))
        .help(format!("{first}{default}"))
        .long_help(format!("{meaning}{default}\nAllowed: {allowed}. Setting: {}", setting.key))
        .help_heading(section);
    match setting.kind {
        Kind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        Kind::Hosts => arg.num_args(1..).action(ArgAction::Append).value_delimiter(','),
        Kind::Inputs => arg.num_args(1..).action(ArgAction::Append).value_hint(ValueHint::AnyPath),
        Kind::Path { .. } | Kind::Place { .. } => arg.value_hint(ValueHint::DirPath),
        // So that -5 is out of range, and not an unknown flag.
        Kind::Integer { .. } | Kind::Share => arg.allow_negative_numbers(true),
        _ => arg,
    }
}

/// A file of hosts gives one for each line; blank lines and those that begin with `#` are left out. What is no file
/// stands for itself, and is judged with the other settings.
fn hosts_of(word: String) -> Vec<String> {
    let text = if word.contains(':') { None } else { std::fs::read_to_string(&word).ok() };
    let Some(text) = text else { return vec![word] };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

fn set_arg() -> Arg {
    Arg::new("set")
        .long("set")
        .value_name("KEY=VALUE")
        .action(ArgAction::Append)
        .value_parser(|text: &str| {
            let pair = text.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
            pair.ok_or("expected KEY=VALUE, for example epochs.trigger=5s")
        })
        .help("Any setting by its key, such as epochs.trigger=5s; may be repeated")
}

impl<V: Takes> Args for SettingFlags<V> {
    fn augment_args(command: Command) -> Command {
        flags::<V>().fold(command.arg(set_arg()), |command, (setting, name)| command.arg(arg::<V>(setting, name)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<V: Takes> FromArgMatches for SettingFlags<V> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Vec::new();
        for (setting, name) in flags::<V>() {
            let Some(words) = matches.get_many::<String>(setting.key) else { continue };
            let mut words: Vec<String> = words.cloned().collect();
            let raw = match (setting.kind, words.pop()) {
                (Kind::Inputs, Some(last)) => Raw::Words(words.into_iter().chain([last]).collect()),
                (Kind::Hosts, Some(last)) => Raw::Words(words.into_iter().chain([last]).flat_map(hosts_of).collect()),
                (_, Some(word)) => Raw::Word(word),
                (_, None) => continue,
            };
            given.push(Given { key: setting.key.to_owned(), raw, origin: Origin::Flag(format!("--{name}")) });
        }
        for (key, value) in matches.get_many::<(String, String)>("set").into_iter().flatten().cloned() {
            given.push(Given { key, raw: Raw::Word(value), origin: Origin::Flag("--set".to_owned()) });
        }
        Ok(SettingFlags { given, verb: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
