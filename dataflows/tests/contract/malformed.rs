//! R000: what is no event at all, and what only looks like it.

use super::*;
use bytes::Bytes;
use tidemark_dataflows::block::{Arrival, Block, MAX_BODY_BYTES, MAX_KEPT_BYTES, Section};
use tidemark_dataflows::contract::MAX_DEPTH;
use tidemark_dataflows::reason::Reason::MalformedEvent;

#[test]
fn not_one_json_object() {
    for json in [
        "",
        " ",
        "null",
        "7",
        "1e400",
        "\"event\"",
        "[]",
        "[{}]",
        "{",
        "}",
        "not json at all",
        "{}{}",
        "{} {}",
        "{},",
        "{}]",
        "{,}",
        "{\"a\":1,}",
        "{\"a\":1 \"b\":2}",
        "{\"a\" 1}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":}",
        "{1:1}",
        "{\"a\":01}",
        "{\"a\":+1}",
        "{\"a\":.5}",
        "{\"a\":1.}",
        "{\"a\":1e}",
        "{\"a\":-}",
        "{\"a\":0x1}",
        "{\"a\":1_000}",
        "{\"a\":tru}",
        "{\"a\":TRUE}",
        "{\"a\":[1,]}",
        "{\"a\":[1}",
        "{\"a\":\"b}",
        "{\"a\":1}/* */",
        "{\"a\":1}//",
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{\"a\":-Infinity}",
        "{\"a\":\u{a0}1}",
    ] {
        assert_eq!(reason(json), Some(MalformedEvent), "{json:?}");
    }
    for amount in ["NaN", "Infinity", "-Infinity", "01", "1.", ".5", "+1", "1e", "0x10", "1,5", "--1", "- 1", "1 0"] {
        assert_eq!(reason(event_with(&[("amount", amount)])), Some(MalformedEvent), "{amount}");
    }
}

#[test]
fn a_long_body_of_the_wrong_kind_is_not_quoted() {
    for (open, close) in [("\"", "\""), ("[\"", "\"]"), ("{\"", "\"}"), ("{\"a\": x", "}")] {
        let json = format!("{open}{}{close}", "x".repeat(100_000));
        assert_eq!(reason(json), Some(MalformedEvent));
    }
}

#[test]
fn only_white_space_may_stand_around_the_object() {
    let json = event_with(&[]);
    for space in [" ", "\t", "\r", "\n", " \r\n\t"] {
        assert_eq!(reason(format!("{space}{json}{space}")), None, "{space:?}");
    }
    for other in ["x", "\0", "{}", ",", "\u{b}", "\u{c}", "\u{a0}", "\u{2028}", "\u{feff}", "null"] {
        assert_eq!(reason(format!("{json}{other}")), Some(MalformedEvent), "{other:?} behind");
        assert_eq!(reason(format!("{json} {other}")), Some(MalformedEvent), "{other:?} behind a space");
        assert_eq!(reason(format!("{other}{json}")), Some(MalformedEvent), "{other:?} before");
    }
}

#[test]
fn white_space_between_tokens() {
    let json = event_with(&[]);
    let spaced = json.replace(": ", "\t:\r\n ").replace(", ", " ,\n\t").replace('{', "{ ").replace('}', "\r}");
    assert_eq!(check(&spaced), check(&json));
    assert_eq!(check(json.replace(": ", ":").replace(", ", ",")), check(&json));
    assert_eq!(reason(json.replace(": ", "\u{b}:")), Some(MalformedEvent));
    assert_eq!(reason(json.replace("12.34", "12 .34")), Some(MalformedEvent));
}

#[test]
fn byte_order_marks() {
    let json = event_with(&[]);
    assert_eq!(check(format!("\u{feff}{json}")).unwrap_err().detail.as_deref(), Some("starts with a byte order mark"));
    let utf16: Vec<u8> = format!("\u{feff}{json}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(reason(utf16), Some(MalformedEvent));
    assert_eq!(reason(event_with(&[("user_id", "\"\u{feff}\"")])), None, "inside a string it is a character");
}

#[test]
fn invalid_utf8_anywhere() {
    for bytes in [&b"\xff"[..], b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"] {
        for (member, _) in VALID {
            let json = event_with(&[(member, "\"@\"")]).into_bytes();
            assert_eq!(reason(replace(&json, b'@', bytes)), Some(MalformedEvent), "{member}: {bytes:?}");
        }
        for ignored in [r#""more": "@""#, r#""@": 1"#, r#""more": {"@": ["@"]}"#, r#""more": @"#] {
            let json = replace(event_after(ignored).as_bytes(), b'@', bytes);
            assert_eq!(reason(json), Some(MalformedEvent), "{ignored}: {bytes:?}");
        }
    }
    for valid in ["é", "€", "\u{10ffff}", "\u{7f}"] {
        assert_eq!(check(event_with(&[("user_id", &format!("\"{valid}\""))])).unwrap().user.0, valid);
    }
}

fn replace(json: &[u8], byte: u8, with: &[u8]) -> Vec<u8> {
    json.iter().flat_map(|b| if *b == byte { with.to_vec() } else { vec![*b] }).collect()
}

#[test]
fn control_characters_in_strings() {
    for control in (0..0x20_u8).map(char::from) {
        for (member, _) in VALID {
            let json = event_with(&[(member, &format!("\"a{control}b\""))]);
            assert_eq!(reason(json), Some(MalformedEvent), "{member}: {control:?}");
        }
        for ignored in
            [format!("\"more\": \"{control}\""), format!("\"{control}\": 1"), format!("\"a\":[\"{control}\"]")]
        {
            assert_eq!(reason(event_after(&ignored)), Some(MalformedEvent), "{ignored:?}");
        }
    }
}

const VALID_ESCAPES: [(&str, &str); 6] = [
    (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
    (r"\u0041\u00e9\u20AC", "Aé€"),
    (r"\ud83d\ude00", "😀"),
    (r"\uDBFF\uDFFF", "\u{10ffff}"),
    (r"\ud7ff\ue000", "\u{d7ff}\u{e000}"),
    (r"\u0000", "\0"),
];

const INVALID_ESCAPES: [&str; 16] = [
    r"\x",
    r"\u",
    r"\u12",
    r"\u123g",
    r"\U0041",
    r"\'",
    r"\0",
    r"\ud83d",
    r"\ude00",
    r"\ud83d\ud83d",
    r"\ud83d\u0041",
    r"\ud83dx\ude00",
    r"\ud83d\n\ude00",
    r"\ude00\ud83d",
    r"\ud83d\ude00\ude00",
    r"\ud83d\",
];

#[test]
fn escapes_in_members() {
    for (escaped, plain) in VALID_ESCAPES {
        let event = check(event_with(&[("user_id", &format!("\"{escaped}\""))])).unwrap();
        assert_eq!(event.user.0, plain);
        let event = check(event_with(&[("event_id", &format!("\"{escaped}\""))])).unwrap();
        assert_eq!(event.curated.unwrap().event_id, plain);
    }
    for escape in INVALID_ESCAPES {
        for (member, _) in VALID {
            let json = event_with(&[(member, &format!("\"{escape}\""))]);
            assert_eq!(reason(&json), Some(MalformedEvent), "{json}");
        }
    }
    let escaped = event_with(&[
        ("event_time", r#""2026\u002d01-01T09:59:58.123456+00:00""#),
        ("event_type", r#""deposit\u005fcompleted""#),
        ("currency", r#""\u0047BP""#),
        ("channel", r#""we\u0062""#),
    ]);
    assert_eq!(check(escaped), check(event_with(&[])));
}

#[test]
fn escapes_in_what_is_ignored() {
    let ignored = |inside: &str| {
        [
            event_after(&format!("\"more\": \"{inside}\"")),
            event_after(&format!("\"{inside}\": 1")),
            event_after(&format!("\"more\": [{{\"deep\": [\"{inside}\"]}}]")),
            event_after(&format!("\"more\": {{\"deep\": {{\"{inside}\": 1}}}}")),
        ]
    };
    for (escaped, _) in VALID_ESCAPES {
        for json in ignored(escaped) {
            assert_eq!(check(&json), check(event_with(&[])), "{json}");
        }
    }
    for escape in INVALID_ESCAPES {
        for json in ignored(escape) {
            assert_eq!(reason(&json), Some(MalformedEvent), "{json}");
        }
    }
}

#[test]
fn a_member_given_twice() {
    for (name, value) in VALID {
        let (first, rest) = name.split_at(1);
        let escaped = format!("\\u{:04x}{rest}", u32::from(first.as_bytes()[0]));
        for again in [name.to_owned(), escaped, name.replace('_', "\\u005F")] {
            for other in [value, "null", "{}"] {
                let before = event_after(&format!("\"{again}\": {other}"));
                assert_eq!(reason(&before), Some(MalformedEvent), "{before}");
                let behind = event_with(&[]).replace('}', &format!(", \"{again}\": {other}}}"));
                assert_eq!(reason(&behind), Some(MalformedEvent), "{behind}");
            }
        }
    }
    let escaped = event_with(&[]).replace("event_id", "event\\u005fid");
    assert_eq!(check(escaped), check(event_with(&[])), "once, under an escaped name");
    for harmless in [
        r#""more": 1, "more": 2"#,
        r#""more": {"event_id": 1, "event_id": 2}"#,
        r#""Event_id": 1, "event_id ": 2, "event\\u005fid": 3"#,
    ] {
        assert_eq!(check(event_after(harmless)), check(event_with(&[])), "{harmless}");
    }
}

#[test]
fn nesting_of_64_levels_and_no_more() {
    let arrays = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let objects = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    let mixed = |levels: usize| match levels % 2 {
        0 => format!("{}{}", "[{\"a\":".repeat(levels / 2) + "1", "}]".repeat(levels / 2)),
        _ => format!("{}[]{}", "[{\"a\":".repeat(levels / 2), "}]".repeat(levels / 2)),
    };
    // The event itself is the first level.
    for levels in [1, 2, MAX_DEPTH - 2, MAX_DEPTH - 1] {
        for value in [arrays(levels), objects(levels), mixed(levels)] {
            assert_eq!(reason(event_after(&format!("\"more\": {value}"))), None, "{levels}: {value}");
            assert_eq!(reason(event_with(&[("amount", &value)])), Some(Reason::NullAmount), "{levels}: {value}");
        }
    }
    for levels in [MAX_DEPTH, MAX_DEPTH + 1, 127, 128, 129, 1000, 100_000] {
        for value in [arrays(levels), objects(levels), mixed(levels)] {
            assert_eq!(reason(event_after(&format!("\"more\": {value}"))), Some(MalformedEvent), "{levels}");
            assert_eq!(reason(event_with(&[("amount", &value)])), Some(MalformedEvent), "{levels}");
        }
    }
}

#[test]
fn a_body_of_1_mib_and_one_of_a_byte_more() {
    let json = event_with(&[]);
    let exact = format!("{json}{}", " ".repeat(MAX_BODY_BYTES - json.len()));
    assert_eq!(check(&exact), check(&json));
    let over = check(format!("{exact} ")).unwrap_err();
    assert_eq!((over.reason, over.detail.as_deref()), (MalformedEvent, Some("1048577 bytes, more than 1048576")));
    let padded = |length: usize| {
        let start = event_after("\"more\": \"@\"");
        let padding = "x".repeat(length + 1 - start.len());
        start.replace('@', &padding)
    };
    assert_eq!(check(padded(MAX_BODY_BYTES)), check(&json));
    assert_eq!(reason(padded(MAX_BODY_BYTES + 1)), Some(MalformedEvent));
}

#[test]
fn what_came_as_values_is_no_event_whatever_its_text_says() {
    let json = event_with(&[]);
    for (section, name) in [(Section::Value, "AMQP value section"), (Section::Sequence, "AMQP sequence section")] {
        let body = Body { section: Some(section), ..body(json.as_bytes()) };
        assert_eq!(contract().check_fast(&body, ORIGIN), None);
        let violation = contract().check(&body, ORIGIN).unwrap_err();
        assert_eq!((violation.reason, violation.detail.as_deref()), (MalformedEvent, Some(name)));
        let long = Body { whole_len: 5_000_000, ..body };
        assert_eq!(contract().check(&long, ORIGIN).unwrap_err().detail.as_deref(), Some(name));
    }
}

#[test]
fn blocks_know_which_of_their_bodies_came_as_values() {
    let block = Block {
        partition: PartitionId(3),
        first_offset: Offset(7),
        arrival: Arrival::Opening(Micros(0)),
        bytes: Bytes::from_static(b"abc"),
        bodies: vec![0..1, 1..2, 2..3],
        oversized: Vec::new(),
        sections: vec![(1, Section::Sequence)],
    };
    let sections: Vec<_> = block.iter().map(|body| body.section).collect();
    assert_eq!(sections, [None, Some(Section::Sequence), None]);
}

#[test]
fn of_an_oversized_body_only_the_start_is_there() {
    let mut bytes = event_with(&[]).into_bytes();
    bytes.resize(MAX_KEPT_BYTES, b' ');
    let body = Body { whole_len: 5_000_000, ..body(&bytes) };
    assert_eq!(contract().check_fast(&body, ORIGIN), None, "what is kept is a valid event, the whole is none");
    let violation = contract().check(&body, ORIGIN).unwrap_err();
    assert_eq!(violation.reason, MalformedEvent);
    assert_eq!(violation.detail.as_deref(), Some("5000000 bytes, more than 1048576"));
}
