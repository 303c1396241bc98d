//! AMQP values as JSON text, for bodies that are no bytes: what came is to be read where it is rejected.

use std::time::{SystemTime, UNIX_EPOCH};

use azure_core::base64;
use azure_core_amqp::{AmqpList, AmqpValue};

/// Values within each other that are written; the service takes no message in which more of them mean anything.
const MAX_NESTING: usize = 128;

/// Appends a value as JSON text: binary as base64 text, times as RFC 3339, what is no number in JSON (not a number,
/// infinity) as text, decimals as the base64 text of their bytes, a described value as an object with its descriptor.
pub(crate) fn append(value: &AmqpValue, out: &mut Vec<u8>) {
    append_at(value, out, 0);
}

/// Appends lists: one as an array, several as an array of them.
pub(crate) fn append_lists(lists: &[AmqpList], out: &mut Vec<u8>) {
    match lists {
        [one] => array(&one.0, out, 1),
        several => separated(b"[]", several, out, |list, out| array(&list.0, out, 2)),
    }
}

fn append_at(value: &AmqpValue, out: &mut Vec<u8>, depth: usize) {
    if depth > MAX_NESTING {
        return string("nested too deeply to be kept", out);
    }
    match value {
        AmqpValue::Null => out.extend_from_slice(b"null"),
        AmqpValue::Boolean(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        AmqpValue::UByte(number) => digits(number, out),
        AmqpValue::UShort(number) => digits(number, out),
        AmqpValue::UInt(number) => digits(number, out),
        AmqpValue::ULong(number) => digits(number, out),
        AmqpValue::Byte(number) => digits(number, out),
        AmqpValue::Short(number) => digits(number, out),
        AmqpValue::Int(number) => digits(number, out),
        AmqpValue::Long(number) => digits(number, out),
        // The shortest digits that mean the same number, which are not those of the next wider type.
        AmqpValue::Float(number) if number.is_finite() => out.extend_from_slice(format!("{number:?}").as_bytes()),
        AmqpValue::Double(number) if number.is_finite() => out.extend_from_slice(format!("{number:?}").as_bytes()),
        AmqpValue::Float(number) => string(&number.to_string(), out),
        AmqpValue::Double(number) => string(&number.to_string(), out),
        AmqpValue::Char(character) => string(character.encode_utf8(&mut [0; 4]), out),
        AmqpValue::String(text) => string(text, out),
        AmqpValue::Symbol(symbol) => string(&symbol.0, out),
        AmqpValue::Uuid(id) => string(&id.to_string(), out),
        AmqpValue::Binary(bytes) => string(&base64::encode(bytes), out),
        AmqpValue::Decimal128(bytes) => string(&base64::encode(bytes), out),
        AmqpValue::Decimal64(bytes) => string(&base64::encode(bytes), out),
        AmqpValue::Decimal32(bytes) => string(&base64::encode(bytes), out),
        AmqpValue::TimeStamp(at) => match at.0.and_then(rfc3339) {
            Some(text) => string(&text, out),
            // The client gives no number for what it cannot represent.
            None => out.extend_from_slice(b"null"),
        },
        AmqpValue::List(list) => array(&list.0, out, depth + 1),
        AmqpValue::Array(values) => array(values, out, depth + 1),
        AmqpValue::Map(map) => {
            let entries: Vec<_> = map.iter().collect();
            separated(b"{}", &entries, out, |(key, value), out| {
                member(key, out, depth + 1);
                append_at(value, out, depth + 1);
            });
        }
        AmqpValue::Described(described) => {
            out.extend_from_slice(b"{\"descriptor\":");
            // The client does not let it be named, only be shown.
            string(&format!("{:?}", described.descriptor), out);
            out.extend_from_slice(b",\"value\":");
            append_at(&described.value, out, depth + 1);
            out.push(b'}');
        }
        // A feature of the client that is for other languages adds one more.
        #[allow(unreachable_patterns, reason = "which values there are depends on features of the client")]
        _ => out.extend_from_slice(b"null"),
    }
}

/// The name of a member: a text as it is, any other key as its JSON text.
fn member(key: &AmqpValue, out: &mut Vec<u8>, depth: usize) {
    match key {
        AmqpValue::String(text) => string(text, out),
        AmqpValue::Symbol(symbol) => string(&symbol.0, out),
        other => {
            let mut text = Vec::new();
            append_at(other, &mut text, depth);
            string(&String::from_utf8_lossy(&text), out);
        }
    }
    out.push(b':');
}

fn array(values: &[AmqpValue], out: &mut Vec<u8>, depth: usize) {
    separated(b"[]", values, out, |value, out| append_at(value, out, depth));
}

fn separated<T>(brackets: &[u8; 2], items: &[T], out: &mut Vec<u8>, mut append: impl FnMut(&T, &mut Vec<u8>)) {
    out.push(brackets[0]);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        append(item, out);
    }
    out.push(brackets[1]);
}

fn digits(number: &impl ToString, out: &mut Vec<u8>) {
    out.extend_from_slice(number.to_string().as_bytes());
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\0'..='\u{1f}' => out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes()),
            _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

/// An instant since 1970, to the millisecond that AMQP has. None where its year has more than four digits.
fn rfc3339(at: SystemTime) -> Option<String> {
    let since = at.duration_since(UNIX_EPOCH).ok()?;
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Years begin in March, so that the day that some have more is their last: eras of 400 years, each of 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, january) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = 400 * era + year_of_era + january;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let milliseconds = since.subsec_millis();
    (year <= 9999)
        .then(|| format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use azure_core_amqp::{AmqpDescribed, AmqpOrderedMap, AmqpSymbol, AmqpTimestamp};
    use std::time::Duration;

    fn text(value: impl Into<AmqpValue>) -> String {
        let mut out = Vec::new();
        append(&value.into(), &mut out);
        String::from_utf8(out).expect("JSON is text")
    }

    fn time(seconds: u64, milliseconds: u64) -> String {
        let at = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(milliseconds);
        text(AmqpTimestamp(Some(at)))
    }

    #[test]
    fn plain_values_keep_their_digits_and_characters() {
        assert_eq!((text(()), text(true), text(false)), ("null".into(), "true".into(), "false".into()));
        assert_eq!((text(u64::MAX), text(i64::MIN)), ("18446744073709551615".into(), "-9223372036854775808".into()));
        assert_eq!((text(0.1f32), text(0.1f64), text(1e300f64)), ("0.1".into(), "0.1".into(), "1e300".into()));
        assert_eq!((text(f64::NAN), text(f32::NEG_INFINITY)), ("\"NaN\"".into(), "\"-inf\"".into()));
        assert_eq!(text("a \"b\" \\ \n\u{1}\u{7f}\u{e9}".to_owned()), "\"a \\\"b\\\" \\\\ \\n\\u0001\u{7f}\u{e9}\"");
        assert_eq!((text('\''), text(AmqpSymbol::from("s"))), ("\"'\"".into(), "\"s\"".into()));
        assert_eq!(text(vec![0u8, 255, 16]), "\"AP8Q\"");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time(0, 0), "\"1970-01-01T00:00:00.000Z\"");
        assert_eq!(time(1_709_208_000, 7), "\"2024-02-29T12:00:00.007Z\"");
        assert_eq!(time(4_107_542_399, 999), "\"2100-02-28T23:59:59.999Z\"");
        assert_eq!(time(4_107_542_400, 0), "\"2100-03-01T00:00:00.000Z\"");
        assert_eq!(time(253_402_300_799, 0), "\"9999-12-31T23:59:59.000Z\"");
        assert_eq!((time(253_402_300_800, 0), text(AmqpTimestamp(None))), ("null".into(), "null".into()));
    }

    #[test]
    fn values_within_each_other_are_read_back_by_any_reader() {
        let mut map = AmqpOrderedMap::new();
        map.insert(AmqpValue::from("name".to_owned()), AmqpValue::from(AmqpList(vec![1i32.into(), ().into()])));
        map.insert(AmqpValue::from(7u8), AmqpValue::Array(vec![]));
        map.insert(
            AmqpValue::from(vec![1u8]),
            AmqpValue::Described(Box::new(AmqpDescribed::new(9u64, "x".to_owned()))),
        );
        let said = text(map);
        assert_eq!(said, r#"{"name":[1,null],"7":[],"\"AQ==\"":{"descriptor":"Code(9)","value":"x"}}"#);
        let read: azure_core::Value = azure_core::json::from_json(said).expect("JSON");
        assert_eq!(read["name"][0], 1);
    }

    #[test]
    fn one_list_is_an_array_and_several_are_an_array_of_them() {
        let list = |numbers: &[i32]| AmqpList(numbers.iter().map(|number| AmqpValue::from(*number)).collect());
        let said = |lists: &[AmqpList]| {
            let mut out = Vec::new();
            append_lists(lists, &mut out);
            String::from_utf8(out).expect("JSON is text")
        };
        assert_eq!(said(&[list(&[1, 2])]), "[1,2]");
        assert_eq!(said(&[list(&[1]), list(&[]), list(&[2, 3])]), "[[1],[],[2,3]]");
        assert_eq!(said(&[]), "[]");
    }

    #[test]
    fn nesting_without_end_ends() {
        let nested = (0..1_000).fold(AmqpValue::Null, |inner, _| AmqpValue::List(AmqpList(vec![inner])));
        let said = text(nested);
        assert!(said.len() < 400 && said.contains("nested too deeply"), "{said}");
    }
}
