//! Ids, payloads, names of files and arguments that would steer a terminal, through every verb: none of it comes out as it is.

use serde_json::Value;

use crate::data::{Event, quoted};
use crate::program::Case;

/// A window's title, a colour, a screen cleared by an 8-bit control, text turned round, a line written over.
const HOSTILE: &str = "\u{1b}]0;owned\u{7}\u{1b}[31m\u{9b}2J\u{202e}gnp\r";
const HOSTILE_FILE: &str = "p\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}\r.ndjson";

fn steers(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t') || ('\u{202a}'..='\u{202e}').contains(&c)
}

#[test]
fn nothing_hostile_reaches_a_terminal_by_any_verb() {
    let hostile = quoted(HOSTILE);
    let lines = [
        Event::new("sound", 1).line(),
        Event::new("by", 2).line().replace("\"by\"", &hostile),
        Event::new("of", 3).user("whom").line().replace("\"whom\"", &hostile),
        Event::new("no", 4).amount("-1").line().replace("\"no\"", &hostile),
        format!("{HOSTILE} is no event").replace('\r', ""),
    ];
    let case = Case::new();
    std::fs::write(case.path("in").join(HOSTILE_FILE), lines.join("\n") + "\n").unwrap();
    let input = format!("in/{HOSTILE_FILE}");
    let hostile_words = [input.as_str(), HOSTILE];
    let quarantined = "quarantine list --output out";
    let verbs = [
        "run --input in --output out --curated --epoch-events 2",
        "run --input in --output out --curated --epoch-events 2 --log-format json",
        "run --input IN --output HOSTILE",
        "run --input HOSTILE --output other",
        "run --input in --output out --epoch-events HOSTILE",
        "run --HOSTILE",
        "validate --online --input in --output HOSTILE",
        "evidence --output out",
        "evidence --output HOSTILE",
        "explain --output out --input in HOSTILE",
        "explain --output out --input in HOSTILE --json",
        "explain --output out --input in sound",
        quarantined,
        &format!("{quarantined} --json"),
        "quarantine list --output out --reason HOSTILE",
        "quarantine replay --output out --dry-run",
        "checkpoint list --output out",
        "checkpoint show --output out",
        "checkpoint verify --output out",
        "checkpoint list --output HOSTILE",
        "config show --output HOSTILE",
        "graph --format HOSTILE",
        "schema HOSTILE",
        "status --url HOSTILE",
        "generate --out HOSTILE --events 1",
        "generate --events 3",
    ];
    let mut shown = 0;
    for verb in verbs {
        let args: Vec<String> = verb
            .split(' ')
            .map(|word| word.replace("IN", hostile_words[0]).replace("HOSTILE", hostile_words[1]))
            .collect();
        let ended = case.tidemark(&args.iter().map(String::as_str).collect::<Vec<_>>());
        for text in [&ended.stdout, &ended.stderr] {
            let found = text.lines().find(|line| line.chars().any(steers));
            assert!(found.is_none(), "{verb:?}: {found:?}");
            shown += usize::from(text.contains("owned"));
        }
    }
    // It is escaped, and not left out.
    assert!(shown > 8, "{shown}");
    let listed =
        case.tidemark(&["quarantine", "list", "--output", "out", "--reason", "R120_non_positive_amount", "--json"]);
    let rows: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert!(rows.to_string().contains("owned"), "{}", listed.stdout);
}
