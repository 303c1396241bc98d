//! The eight members of an event out of any JSON text, with nothing lost: numbers stay the digits they are.
//!
//! The grammar is `serde_json`'s, which reads each value raw, without recursion and in linear time. Going through its
//! numbers would not do: an amount would become a float, and a 1e400 in a member that is ignored an error.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::member::Member;

/// The value of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A string, unescaped.
    Text(Cow<'a, str>),
    /// A number, by its digits.
    Number(&'a str),
    /// What it is instead, in words.
    Other(&'static str),
}

/// The eight members, where given.
#[derive(Debug, Default)]
pub(super) struct Members<'a> {
    values: [Option<Value<'a>>; Member::COUNT],
}

impl<'a> Members<'a> {
    /// Reads a text that holds one object and nothing else but white space. The error says where it is not JSON, or
    /// which member came twice.
    pub(super) fn parse(json: &'a str) -> Result<Members<'a>, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// The value of `member`, or what stands in its place, in words.
    pub(super) fn get(&self, member: Member) -> &Value<'a> {
        self.values[member as usize].as_ref().unwrap_or(&Value::Other("missing"))
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members::default();
        while let Some(Name(name)) = map.next_key()? {
            let Some(member) = name else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let raw: &RawValue = map.next_value()?;
            let value = Value::from_raw(raw.get())
                .map_err(|_| A::Error::custom(format_args!("half a surrogate pair in `{}`", member.name())))?;
            if members.values[member as usize].replace(value).is_some() {
                return Err(A::Error::custom(format_args!("`{}` is given twice", member.name())));
            }
        }
        Ok(members)
    }
}

impl<'a> Value<'a> {
    /// `raw` is the text of one valid JSON value. All that can be wrong with it is half a surrogate pair.
    fn from_raw(raw: &'a str) -> Result<Value<'a>, serde_json::Error> {
        #[derive(Deserialize)]
        #[serde(transparent)]
        struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

        Ok(match raw.as_bytes().first() {
            Some(b'"') => Value::Text(serde_json::from_str::<Text<'a>>(raw)?.0),
            Some(b'-' | b'0'..=b'9') => Value::Number(raw),
            Some(b'n') => Value::Other("null"),
            Some(b'[') => Value::Other("an array"),
            Some(b'{') => Value::Other("an object"),
            _ => Value::Other("a boolean"),
        })
    }

    /// What kind of value it is, in words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Number(_) => "a number",
            Value::Other(kind) => kind,
        }
    }
}

/// A member's name as the contract knows it, compared after unescaping without keeping it.
struct Name(Option<Member>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl Visitor<'_> for NameVisitor {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<Name, E> {
        Ok(Name(Member::from_name(name.as_bytes())))
    }
}
