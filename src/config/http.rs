//! `[http]`: where the pipeline is looked at, and by whom.

use super::draft::{Assigned, Draft};
use super::kind::Value;
use super::problem::{Origin, Problem};
use super::secret::{MASK, Secret};
use serde::Deserialize;
use std::net::IpAddr;
use std::path::PathBuf;

/// Least length of a token in bytes.
pub const TOKEN_BYTES_MIN: usize = 16;

/// `[http]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Where to listen; nowhere if there is none.
    pub listen: Option<String>,
    /// What whoever asks has to know.
    pub token: Option<Secret>,
    /// The same in a file.
    pub token_file: Option<PathBuf>,
    /// Whether everybody may look from anywhere.
    pub allow_unauthenticated: bool,
}

/// Whether an address is of this machine alone. Of names, only the one that always is.
pub fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Draft {
    /// Judges the section as a whole.
    pub(super) fn check_http(&mut self) {
        self.leave_one(&["http.token", "http.token_file"]);
        if let Some(Assigned { value: Value::Secret(token), origin }) = self.sound("http.token").cloned()
            && token.expose().len() < TOKEN_BYTES_MIN
        {
            let complaint = format!("too short; allowed: at least {TOKEN_BYTES_MIN} bytes, drawn at random");
            self.refuse_http(format!("http.token = {MASK}"), origin, complaint);
        }
        let Some(Assigned { value: Value::Text(address), origin }) = self.sound("http.listen").cloned() else { return };
        let open = self.sound("http.allow_unauthenticated").is_none_or(|open| open.value == Value::Switch(true));
        let token = ["http.token", "http.token_file"].iter().any(|key| self.given(key).is_some());
        if !is_loopback(&address) && !open && !token {
            let complaint = "other machines could look without being asked who they are: set TIDEMARK__HTTP__TOKEN or \
                             http.token_file, listen on 127.0.0.1, or say http.allow_unauthenticated = true"
                .to_owned();
            self.refuse_http(format!("http.listen = {address:?}"), origin, complaint);
        }
    }

    fn refuse_http(&mut self, subject: String, origin: Origin, complaint: String) {
        self.problems.push(Problem { subject, origin, complaint });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Given;
    use crate::config::kind::Raw;

    fn problems(settings: &[(&str, &str)]) -> Vec<String> {
        let given = |(key, value): &(&str, &str)| Given {
            key: (*key).to_owned(),
            raw: Raw::Word((*value).to_owned()),
            origin: Origin::Environment((*key).to_owned()),
        };
        let mut draft = Draft::default();
        let defaults = [("http.token", ""), ("http.token_file", ""), ("http.allow_unauthenticated", "false")];
        draft.lay(defaults.iter().map(given).collect());
        draft.lay(settings.iter().map(given).collect());
        draft.check_together();
        draft.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn this_machine_needs_no_token_and_others_do() {
        for address in ["127.0.0.1:9464", "localhost:1", "[::1]:0", "off", "127.9.9.9:80"] {
            assert_eq!(problems(&[("http.listen", address)]), Vec::<String>::new(), "{address}");
        }
        for address in ["0.0.0.0:9464", "[::]:9464", "10.0.0.1:1", "localhost.example.com:1", "[::ffff:10.0.0.1]:1"] {
            let found = problems(&[("http.listen", address)]);
            let told = |words: &[&str]| words.iter().all(|word| found[0].contains(word));
            assert!(found.len() == 1 && told(&["http.listen = ", address, "TIDEMARK__HTTP__TOKEN"]), "{found:?}");
            for remedy in [
                ("http.token", "0123456789abcdef"),
                ("http.token_file", "token"),
                ("http.allow_unauthenticated", "true"),
            ] {
                assert_eq!(problems(&[("http.listen", address), remedy]), Vec::<String>::new(), "{address} {remedy:?}");
            }
        }
    }

    #[test]
    fn a_token_that_can_be_guessed_is_refused_and_not_repeated() {
        let found = problems(&[("http.listen", "127.0.0.1:1"), ("http.token", "hunter2")]);
        assert!(found.len() == 1 && found[0].contains("16 bytes") && !found[0].contains("hunter2"), "{found:?}");
    }
}
