//! Text of unknown origin, made fit for a terminal.

use std::fmt::Write;

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

/// Marks of direction, joiners and other characters that have no picture of their own.
fn steers(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(printable("{\"a\":1} é 日", 99), "{\"a\":1} é 日");
        assert_eq!(printable("\x1b[2Jx\r\n\t\u{9b}", 99), "\\u{1b}[2Jx\\r\\n\\t\\u{9b}");
        assert_eq!(printable("a\u{202e}b\\", 99), "a\\u{202e}b\\\\");
        assert_eq!((printable("abc", 2), printable("abc", 3)), ("ab…".to_owned(), "abc".to_owned()));
    }
}
