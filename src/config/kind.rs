//! What a setting may hold: its kind with its range, and the one place where a value is checked against it.

use super::place::{self, Place};
use super::secret::{MASK, Secret};
use super::units::{format_duration, format_size, parse_duration, parse_size};
use chrono::{DateTime, SecondsFormat};
use std::{fmt, time::Duration};

/// The kind of a setting: which values are allowed, and how they are written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A name of ASCII letters, digits, `-` and `_`; names the application in every table's transactions.
    Name,
    /// A path on a local disk.
    Path {
        /// What an empty text stands for, where it is allowed.
        empty: Option<&'static str>,
    },
    /// A directory on a local disk, or a URL of Azure Storage.
    Place {
        /// What an empty text stands for, where it is allowed.
        empty: Option<&'static str>,
    },
    /// A word without white space.
    Text {
        /// What an empty text stands for.
        empty: &'static str,
    },
    /// Where a new reader of an event hub begins.
    Beginning,
    /// A URL of a web service.
    Endpoint {
        /// What an empty text stands for.
        empty: &'static str,
    },
    /// A key, password or token, given by the environment or a file.
    Secret,
    /// Paths, globs or `-`.
    Inputs,
    /// Addresses of processes, each a host and a port.
    Hosts,
    /// One address: a host and a port.
    Host {
        /// What an empty text stands for.
        empty: &'static str,
    },
    /// An address to listen on, or `off`.
    Listen,
    /// One of the given words.
    Choice(&'static [&'static str]),
    /// A whole number within both bounds.
    Integer {
        /// Least value.
        min: u64,
        /// Greatest value.
        max: u64,
    },
    /// A number from 0 to 1.
    Share,
    /// True or false.
    Switch,
    /// A duration within both bounds.
    Duration {
        /// Shortest value.
        min: Duration,
        /// Longest value.
        max: Duration,
        /// What an empty text stands for, where it is allowed.
        empty: Option<&'static str>,
    },
    /// A size within both bounds.
    Size {
        /// Least value in bytes.
        min: u64,
        /// Greatest value in bytes.
        max: u64,
        /// What an empty text stands for, where it is allowed.
        empty: Option<&'static str>,
    },
    /// An instant; the field says what an empty text stands for.
    Instant {
        /// What an empty text stands for.
        empty: &'static str,
    },
    /// Log levels by module, such as `info,tidemark::sink=debug`.
    LogFilter,
}

/// A value as a layer gives it, before it is checked.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    /// Text without a type of its own: from a flag or the environment.
    Word(String),
    /// Words of one flag that takes several.
    Words(Vec<String>),
    /// A value of a configuration file.
    Toml(toml::Value),
    /// The text of a file's value that no setting can hold, such as an integer of 30 digits.
    Unreadable(String),
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Raw::Word(word) => write!(f, "{word:?}"),
            Raw::Words(words) => write!(f, "{words:?}"),
            Raw::Toml(value) => write!(f, "{value}"),
            Raw::Unreadable(text) => f.write_str(text),
        }
    }
}

/// A checked value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing given, where that is allowed.
    Empty,
    /// A name, path, choice or log filter.
    Text(String),
    /// What is never printed.
    Secret(Secret),
    /// Inputs, in the order given.
    List(Vec<String>),
    /// A whole number.
    Integer(u64),
    /// A share of 1.
    Share(f64),
    /// On or off.
    Switch(bool),
    /// A duration.
    Duration(Duration),
    /// A size in bytes.
    Size(u64),
    /// An instant in microseconds since 1970-01-01T00:00:00Z.
    Instant(i64),
}

impl Value {
    /// The value as it is written in a configuration file.
    pub fn to_toml(&self) -> toml::Value {
        match self {
            Value::Integer(number) => i64::try_from(*number).unwrap_or(i64::MAX).into(),
            Value::Share(share) => (*share).into(),
            Value::Switch(on) => (*on).into(),
            Value::List(items) => items.iter().map(String::as_str).collect::<Vec<_>>().into(),
            Value::Empty => "".into(),
            Value::Secret(_) => MASK.into(),
            Value::Text(text) => text.as_str().into(),
            Value::Duration(duration) => format_duration(*duration).into(),
            Value::Size(bytes) => format_size(*bytes).into(),
            Value::Instant(micros) => {
                let instant = DateTime::from_timestamp_micros(*micros).unwrap_or_default();
                instant.to_rfc3339_opts(SecondsFormat::AutoSi, true).into()
            }
        }
    }

    /// The value for serde: whole units, nothing left to read.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Empty => serde_json::Value::Null,
            Value::Secret(secret) => secret.expose().into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.as_slice().into(),
            Value::Integer(number) | Value::Size(number) => (*number).into(),
            Value::Share(share) => (*share).into(),
            Value::Switch(on) => (*on).into(),
            Value::Duration(d) => serde_json::json!({ "secs": d.as_secs(), "nanos": d.subsec_nanos() }),
            Value::Instant(micros) => (*micros).into(),
        }
    }
}

impl Kind {
    /// What is allowed, in words that follow "allowed:".
    pub fn allowed(&self) -> String {
        match self {
            Kind::Name => "1 to 64 letters, digits, - and _".to_owned(),
            Kind::Path { empty } => or_empty("a path on a local disk", *empty),
            Kind::Place { empty } => or_empty(place::ALLOWED, *empty),
            Kind::Text { empty } => or_empty("text without white space", Some(empty)),
            Kind::Endpoint { empty } => or_empty("a URL that begins with https:// or http://", Some(empty)),
            Kind::Secret => or_empty("a secret, not on the command line", Some("none")),
            Kind::Inputs => "a list of files, directories and globs, or - for standard input".to_owned(),
            Kind::Hosts => "a list of HOST:PORT".to_owned(),
            Kind::Host { empty } => or_empty("HOST:PORT", Some(empty)),
            Kind::Listen => "HOST:PORT, with port 0 for any that is free, or off".to_owned(),
            Kind::Choice(words) => words.join(" or "),
            Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Beginning => "earliest, latest, or an RFC 3339 time".to_owned(),
            Kind::Share => "a number from 0 to 1".to_owned(),
            Kind::Switch => "true or false".to_owned(),
            Kind::Duration { min, max, empty } => {
                or_empty(&format!("a duration from {} to {}", format_duration(*min), format_duration(*max)), *empty)
            }
            Kind::Size { min, max, empty } => {
                or_empty(&format!("a size from {} to {}", format_size(*min), format_size(*max)), *empty)
            }
            Kind::Instant { empty } => format!("an RFC 3339 time, or \"\" for {empty}"),
            Kind::LogFilter => {
                "off, error, warn, info, debug or trace, also by module (info,tidemark=debug)".to_owned()
            }
        }
    }

    /// The name of a value of this kind in help texts.
    pub fn value_name(&self) -> &'static str {
        match self {
            Kind::Name => "NAME",
            Kind::Path { .. } | Kind::Inputs => "PATH",
            Kind::Place { .. } => "PATH|URL",
            Kind::Text { .. } | Kind::Secret => "TEXT",
            Kind::Endpoint { .. } => "URL",
            Kind::Hosts | Kind::Host { .. } => "HOST:PORT",
            Kind::Listen => "ADDRESS",
            Kind::Choice(_) => "KIND",
            Kind::Integer { .. } => "NUMBER",
            Kind::Beginning => "PLACE",
            Kind::Share => "SHARE",
            Kind::Switch => "BOOL",
            Kind::Duration { .. } => "DURATION",
            Kind::Size { .. } => "SIZE",
            Kind::Instant { .. } => "TIME",
            Kind::LogFilter => "FILTER",
        }
    }

    /// The checked value, or `None` if `raw` has the wrong type, cannot be read, or is out of range.
    pub fn check(&self, raw: &Raw) -> Option<Value> {
        let text = text_of(raw);
        match *self {
            Kind::Name => text.filter(|t| is_name(t)).map(Value::Text),
            Kind::Choice(words) => text.filter(|t| words.contains(&t.as_str())).map(Value::Text),
            Kind::LogFilter => text.filter(|t| is_log_filter(t)).map(Value::Text),
            Kind::Hosts => list_of(raw).filter(|list| list.iter().all(|t| is_host(t))).map(Value::List),
            Kind::Inputs => list_of(raw).filter(|list| list.iter().all(|t| is_local_path(t))).map(Value::List),
            Kind::Integer { min, max } => integer_of(raw).filter(|n| (min..=max).contains(n)).map(Value::Integer),
            Kind::Share => number_of(raw).filter(|share| (0.0..=1.0).contains(share)).map(Value::Share),
            Kind::Switch => switch_of(raw).map(Value::Switch),
            Kind::Duration { empty: Some(_), .. }
            | Kind::Size { empty: Some(_), .. }
            | Kind::Path { empty: Some(_) }
            | Kind::Place { empty: Some(_) }
            | Kind::Text { .. }
            | Kind::Endpoint { .. }
            | Kind::Host { .. }
            | Kind::Secret
            | Kind::Instant { .. }
                if text.as_deref() == Some("") =>
            {
                Some(Value::Empty)
            }
            Kind::Text { .. } => text.filter(|t| !t.contains(char::is_whitespace)).map(Value::Text),
            Kind::Host { .. } => text.filter(|t| is_host(t)).map(Value::Text),
            Kind::Listen => match text?.as_str() {
                "" | "off" => Some(Value::Empty),
                address => is_address(address, 0).then(|| Value::Text(address.to_owned())),
            },
            Kind::Beginning => match text?.as_str() {
                word @ ("earliest" | "latest") => Some(Value::Text(word.to_owned())),
                time => instant_of(time).map(Value::Instant),
            },
            Kind::Secret => text.filter(|t| !t.trim().is_empty()).map(|t| Value::Secret(t.trim().to_owned().into())),
            Kind::Path { .. } => text.filter(|t| is_local_path(t)).map(Value::Text),
            Kind::Place { .. } => text.filter(|t| Place::parse(t).is_some()).map(Value::Text),
            Kind::Endpoint { .. } => text.filter(|t| is_endpoint(t)).map(Value::Text),
            Kind::Duration { min, max, .. } => {
                parse_duration(&text?).filter(|d| (min..=max).contains(d)).map(Value::Duration)
            }
            Kind::Size { min, max, .. } => parse_size(&text?).filter(|n| (min..=max).contains(n)).map(Value::Size),
            Kind::Instant { .. } => instant_of(&text?).map(Value::Instant),
        }
    }
}

fn or_empty(allowed: &str, empty: Option<&str>) -> String {
    empty.map_or(allowed.to_owned(), |meaning| format!("{allowed}, or \"\" for {meaning}"))
}

fn text_of(raw: &Raw) -> Option<String> {
    match raw {
        Raw::Word(text) | Raw::Toml(toml::Value::String(text)) => Some(text.clone()),
        Raw::Toml(toml::Value::Datetime(time)) => Some(time.to_string()),
        _ => None,
    }
}

fn integer_of(raw: &Raw) -> Option<u64> {
    match raw {
        Raw::Word(word) => word.replace('_', "").parse().ok(),
        Raw::Toml(toml::Value::Integer(number)) => u64::try_from(*number).ok(),
        _ => None,
    }
}

fn number_of(raw: &Raw) -> Option<f64> {
    match raw {
        Raw::Word(word) => word.parse().ok(),
        Raw::Toml(toml::Value::Float(number)) => Some(*number),
        // 0 and 1 are shares too; any other integer is out of range anyway.
        Raw::Toml(toml::Value::Integer(number)) => i32::try_from(*number).ok().map(f64::from),
        _ => None,
    }
}

fn switch_of(raw: &Raw) -> Option<bool> {
    match raw {
        Raw::Word(word) => word.parse().ok(),
        Raw::Toml(toml::Value::Boolean(on)) => Some(*on),
        _ => None,
    }
}

/// A list: of one environment variable it is written with commas, so a path with a comma in it needs the file.
fn list_of(raw: &Raw) -> Option<Vec<String>> {
    match raw {
        Raw::Words(words) => Some(words.clone()),
        Raw::Word(word) if word.is_empty() => Some(Vec::new()),
        Raw::Word(word) => Some(word.split(',').map(|item| item.trim().to_owned()).collect()),
        Raw::Toml(toml::Value::Array(items)) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        Raw::Toml(_) | Raw::Unreadable(_) => None,
    }
}

/// The instants an event time may have as well: from 1970 to the year 9999.
fn instant_of(text: &str) -> Option<i64> {
    let micros = DateTime::parse_from_rfc3339(text).ok()?.timestamp_micros();
    (0..=253_402_300_799_999_999).contains(&micros).then_some(micros)
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Scheme and host, without what could be a secret.
fn is_endpoint(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(['?', '#', '@', ' ']))
}

/// A name or address, and a port that is not 0.
fn is_host(text: &str) -> bool {
    is_address(text, 1)
}

/// A name or address, and a port from `least` on; an address of IPv6 stands in brackets.
fn is_address(text: &str, least: u16) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let host = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(plain),
    };
    host && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port >= least)
}

/// A URL would become a directory named `abfss:`, so it is no local path.
fn is_local_path(text: &str) -> bool {
    !text.is_empty() && !text.contains("://")
}

/// Stricter than the tracing library, which takes a misspelt level for the name of a module.
fn is_log_filter(text: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    text.split(',').all(|directive| {
        let (module, level) = directive.split_once('=').unwrap_or(("all", directive));
        !module.is_empty() && !module.contains(char::is_whitespace) && LEVELS.contains(&level)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECONDS: Kind = Kind::Duration { min: Duration::ZERO, max: Duration::from_secs(9), empty: None };
    const OR_EMPTY: Kind = Kind::Duration { min: Duration::ZERO, max: Duration::from_secs(9), empty: Some("none") };

    fn word(kind: Kind, text: &str) -> Option<Value> {
        kind.check(&Raw::Word(text.to_owned()))
    }

    fn toml(kind: Kind, text: &str) -> Option<Value> {
        let table: toml::Table = format!("x = {text}").parse().unwrap();
        kind.check(&Raw::Toml(table["x"].clone()))
    }

    #[test]
    fn bounds_belong_to_the_range() {
        let kind = Kind::Integer { min: 2, max: 1_000 };
        assert_eq!(word(kind, "2"), Some(Value::Integer(2)));
        assert_eq!(word(kind, "1_000"), Some(Value::Integer(1_000)));
        assert_eq!((word(kind, "1"), word(kind, "1001"), word(kind, "-2")), (None, None, None));
        assert_eq!(word(SECONDS, "9s"), Some(Value::Duration(Duration::from_secs(9))));
        assert_eq!(word(SECONDS, "9001ms"), None);
        assert_eq!(word(Kind::Size { min: 1, max: 2, empty: None }, "3 B"), None);
    }

    #[test]
    fn only_values_of_a_file_have_types() {
        assert_eq!(word(Kind::Switch, "true"), Some(Value::Switch(true)));
        assert_eq!(toml(Kind::Switch, "true"), Some(Value::Switch(true)));
        assert_eq!(toml(Kind::Switch, "\"true\""), None);
        assert_eq!(toml(Kind::Integer { min: 0, max: 9 }, "\"5\""), None);
        assert_eq!(toml(Kind::Integer { min: 0, max: 9 }, "5.0"), None);
        assert_eq!(toml(SECONDS, "5"), None);
    }

    #[test]
    fn shares_are_finite_and_at_most_one() {
        assert_eq!(toml(Kind::Share, "1"), Some(Value::Share(1.0)));
        assert_eq!(word(Kind::Share, "0.25"), Some(Value::Share(0.25)));
        for text in ["1.01", "-0.1", "nan", "inf", ""] {
            assert_eq!(word(Kind::Share, text), None, "{text:?}");
        }
    }

    #[test]
    fn empty_is_taken_only_where_it_means_something() {
        assert_eq!(word(OR_EMPTY, ""), Some(Value::Empty));
        assert_eq!(word(SECONDS, ""), None);
        assert_eq!(word(Kind::Instant { empty: "now" }, ""), Some(Value::Empty));
        assert_eq!((word(Kind::Path { empty: None }, ""), word(Kind::Name, "")), (None, None));
        assert_eq!(word(Kind::Secret, ""), Some(Value::Empty));
        assert_eq!(word(Kind::Secret, " k\n"), Some(Value::Secret("k".to_owned().into())));
    }

    #[test]
    fn endpoints_are_urls_without_query_and_user() {
        let kind = Kind::Endpoint { empty: "none" };
        for text in ["http://127.0.0.1:10000", "https://acme.blob.example.com/acme"] {
            assert!(word(kind, text).is_some(), "{text}");
        }
        for text in ["127.0.0.1", "https://", "https:///x", "http://a/?sig=x", "ftp://a", "https://me@a"] {
            assert_eq!(word(kind, text), None, "{text}");
        }
    }

    #[test]
    fn hosts_have_a_name_or_address_and_a_port() {
        let list = |items: &[&str]| Some(Value::List(items.iter().map(|item| (*item).to_owned()).collect()));
        assert_eq!(word(Kind::Hosts, "a-0.tm:7400, 10.0.0.2:1"), list(&["a-0.tm:7400", "10.0.0.2:1"]));
        assert_eq!(toml(Kind::Hosts, "[\"[::1]:7400\"]"), list(&["[::1]:7400"]));
        assert_eq!(word(Kind::Host { empty: "none" }, ""), Some(Value::Empty));
        for text in ["a", "a:", ":7400", "a:0", "a:70000", "a b:1", "::1:7400", "http://a:1", "[a]:1", "a:+1"] {
            assert_eq!(word(Kind::Hosts, text), None, "{text}");
        }
    }

    #[test]
    fn an_address_to_listen_on_may_leave_the_port_open() {
        assert_eq!(word(Kind::Listen, "[::1]:0"), Some(Value::Text("[::1]:0".to_owned())));
        assert_eq!((word(Kind::Listen, "off"), word(Kind::Listen, "")), (Some(Value::Empty), Some(Value::Empty)));
        for text in ["9464", ":9464", "on", "127.0.0.1", "http://127.0.0.1:1"] {
            assert_eq!(word(Kind::Listen, text), None, "{text}");
        }
    }

    #[test]
    fn instants_are_kept_to_the_microsecond() {
        let kind = Kind::Instant { empty: "now" };
        assert_eq!(word(kind, "1970-01-01T01:00:00.000007+01:00"), Some(Value::Instant(7)));
        assert_eq!(toml(kind, "1970-01-01T00:00:01Z"), Some(Value::Instant(1_000_000)));
        assert_eq!(word(kind, "1969-12-31T23:59:59Z"), None);
        assert_eq!(word(kind, "yesterday"), None);
        assert_eq!(Value::Instant(7).to_toml().as_str(), Some("1970-01-01T00:00:00.000007Z"));
    }

    #[test]
    fn a_misspelt_log_level_is_no_module() {
        assert!(is_log_filter("info") && is_log_filter("warn,tidemark::sink=debug"));
        assert!(!is_log_filter("inof") && !is_log_filter("") && !is_log_filter("info,") && !is_log_filter("x=loud"));
    }

    #[test]
    fn urls_are_no_local_paths() {
        assert_eq!(word(Kind::Path { empty: None }, "abfss://c@a.dfs.core.windows.net/x"), None);
        let url = "abfss://c01@acc.dfs.core.windows.net/x".to_owned();
        assert_eq!(word(Kind::Place { empty: None }, &url), Some(Value::Text(url)));
        assert_eq!(word(Kind::Place { empty: None }, "s3://bucket/x"), None);
        let list = vec!["a".to_owned(), "b c".to_owned()];
        assert_eq!(word(Kind::Inputs, "a, b c"), Some(Value::List(list)));
        assert_eq!(toml(Kind::Inputs, "[\"a\", 1]"), None);
    }
}
