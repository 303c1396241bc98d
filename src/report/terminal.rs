//! Text of unknown origin, made fit for a terminal.

use std::fmt::Write as _;
use std::io::{self, Write};

/// The first `most` characters on one line: control characters and those that change how their neighbours are shown are
/// written as escapes, so nothing that somebody has sent can steer the terminal or pass for something else.
pub fn printable(text: &str, most: usize) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    for c in chars.by_ref().take(most) {
        if c == '\\' || c.is_control() || steers(c) {
            // Writing to a string cannot fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    if chars.next().is_some() {
        out.push('…');
    }
    out
}

/// Whether it steers the terminal, or how its neighbours are shown: all controls but line ends and tabs, marks of direction,
/// joiners and other characters that have no picture of their own.
pub(crate) fn steers(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// What steers the terminal is written as an escape here, whoever wrote it, in the form that JSON has: an object says the same
/// after it. Line ends and tabs stay.
pub struct Escaping<W> {
    to: W,
    /// Lets colours pass, for a writer that has escaped what is not its own.
    colours: bool,
}

impl<W: Write> Escaping<W> {
    /// For text of any origin.
    pub fn new(to: W) -> Self {
        Escaping { to, colours: false }
    }

    /// For text that is coloured.
    pub fn with_colours(to: W) -> Self {
        Escaping { to, colours: true }
    }

    fn escape(&mut self, text: &str) -> io::Result<()> {
        let mut rest = text;
        while let Some(at) = rest.find(steers) {
            let (before, found) = rest.split_at(at);
            self.to.write_all(before.as_bytes())?;
            let colour = if self.colours { colour_bytes(found) } else { 0 };
            let taken = if colour > 0 {
                self.to.write_all(&found.as_bytes()[..colour])?;
                colour
            } else {
                let mut units = [0; 2];
                let first = found.chars().next().unwrap_or_default();
                for unit in first.encode_utf16(&mut units) {
                    write!(self.to, "\\u{unit:04x}")?;
                }
                first.len_utf8()
            };
            rest = &found[taken..];
        }
        self.to.write_all(rest.as_bytes())
    }
}

/// The bytes of a sequence at the beginning that sets a colour; 0 where there is none.
fn colour_bytes(text: &str) -> usize {
    let Some(rest) = text.strip_prefix("\u{1b}[") else { return 0 };
    let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b';').count();
    if rest.as_bytes().get(digits) == Some(&b'm') { 2 + digits + 1 } else { 0 }
}

/// Whether nothing in it needs a closer look: most of what is written.
fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\n' | b'\t' | b' '..=b'~'))
}

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if is_plain(bytes) {
            return self.to.write(bytes);
        }
        for chunk in bytes.utf8_chunks() {
            self.escape(chunk.valid())?;
            self.to.write_all(chunk.invalid())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::{Escaping, printable};

    #[test]
    fn what_is_written_steers_no_terminal_and_json_stays_what_it_is() {
        let hostile = "\u{1b}]0;x\u{7}\u{9b}2J\u{202e}\r\u{7f}é\u{e0001}\n\t日";
        let mut written = Vec::new();
        let json = serde_json::to_string(hostile).unwrap_or_default();
        Escaping::new(&mut written).write_all(json.as_bytes()).unwrap_or_default();
        let text = String::from_utf8(written).unwrap_or_default();
        assert!(!text.chars().any(super::steers), "{text:?}");
        assert_eq!(serde_json::from_str::<String>(&text).ok().as_deref(), Some(hostile));
        let mut written = Vec::new();
        Escaping::with_colours(&mut written).write_all(b"\x1b[31;1mred\x1b[0m \x1b[2J\xff\n").unwrap_or_default();
        assert_eq!(written, b"\x1b[31;1mred\x1b[0m \\u001b[2J\xff\n");
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(printable("{\"a\":1} é 日", 99), "{\"a\":1} é 日");
        assert_eq!(printable("\x1b[2Jx\r\n\t\u{9b}", 99), "\\u{1b}[2Jx\\r\\n\\t\\u{9b}");
        assert_eq!(printable("a\u{202e}b\\", 99), "a\\u{202e}b\\\\");
        assert_eq!((printable("abc", 2), printable("abc", 3)), ("ab…".to_owned(), "abc".to_owned()));
    }
}
