//! Writes AMQP lists field by field.
//!
//! Every field is written, also those that equal their default: the Python client reads fields by position, fails on a
//! list that ends early, and compares with defaults that are not there.

use serde::Serialize;

/// The fields of a list that is being written.
pub(crate) struct Fields<'a> {
    buffer: &'a mut Vec<u8>,
    count: u32,
}

impl Fields<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.count += 1;
    }

    pub(crate) fn null(&mut self) {
        self.put(&[0x40]);
    }

    pub(crate) fn boolean(&mut self, value: bool) {
        self.put(&[if value { 0x41 } else { 0x42 }]);
    }

    pub(crate) fn ubyte(&mut self, value: u8) {
        self.put(&[0x50, value]);
    }

    pub(crate) fn ushort(&mut self, value: u16) {
        let [a, b] = value.to_be_bytes();
        self.put(&[0x60, a, b]);
    }

    pub(crate) fn uint(&mut self, value: u32) {
        let [a, b, c, d] = value.to_be_bytes();
        self.put(&[0x70, a, b, c, d]);
    }

    pub(crate) fn ulong(&mut self, value: u64) {
        self.buffer.push(0x80);
        self.put(&value.to_be_bytes());
    }

    pub(crate) fn string(&mut self, value: &str) {
        self.variable(0xb1, value.as_bytes());
    }

    pub(crate) fn symbol(&mut self, value: &str) {
        self.variable(0xb3, value.as_bytes());
    }

    fn variable(&mut self, code: u8, content: &[u8]) {
        // Nothing that is written here comes near this; cutting keeps the frame well-formed if it ever did.
        let len = u32::try_from(content.len()).unwrap_or(u32::MAX);
        self.buffer.push(code);
        self.buffer.extend_from_slice(&len.to_be_bytes());
        self.put(&content[..usize::try_from(len).unwrap_or(content.len()).min(content.len())]);
    }

    /// Writes what the types of the codec can encode; null if they cannot.
    pub(crate) fn encoded(&mut self, value: &impl Serialize) {
        match serde_amqp::to_vec(value) {
            Ok(bytes) => self.put(&bytes),
            Err(_) => self.null(),
        }
    }

    /// Writes a described list as a field.
    pub(crate) fn list(&mut self, code: u8, fill: impl FnOnce(&mut Fields<'_>)) {
        list(self.buffer, code, fill);
        self.count += 1;
    }

    /// An error with all its fields.
    pub(crate) fn error(&mut self, condition: &str, description: &str) {
        self.list(0x1d, |error| {
            error.symbol(condition);
            error.string(description);
            error.null();
        });
    }

    /// Properties that are not empty.
    pub(crate) fn product(&mut self) {
        const PRODUCT: &[u8] = b"\xc1\x1b\x02\xa3\x07product\xa1\x0ftidemark-broker";
        self.put(PRODUCT);
    }
}

/// Writes a described list.
pub(crate) fn list(buffer: &mut Vec<u8>, code: u8, fill: impl FnOnce(&mut Fields<'_>)) {
    buffer.extend_from_slice(&[0x00, 0x53, code, 0xd0]);
    let at = buffer.len();
    buffer.extend_from_slice(&[0; 8]);
    let mut fields = Fields { buffer, count: 0 };
    fill(&mut fields);
    let (buffer, count) = (fields.buffer, fields.count);
    let size = u32::try_from(buffer.len() - at - 4).unwrap_or(u32::MAX);
    buffer[at..at + 4].copy_from_slice(&size.to_be_bytes());
    buffer[at + 4..at + 8].copy_from_slice(&count.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use fe2o3_amqp_types::definitions::{Error, ErrorCondition, Fields as Map};

    #[test]
    fn a_list_reads_back_with_the_codec() {
        let mut bytes = Vec::new();
        list(&mut bytes, 0x1d, |error| {
            error.symbol("com.microsoft:server-busy");
            error.string("later");
            error.null();
        });
        let error: Error = serde_amqp::from_slice(&bytes).unwrap();
        assert!(
            matches!(&error.condition, ErrorCondition::Custom(name) if name.as_str() == "com.microsoft:server-busy")
        );
        assert_eq!(error.description.as_deref(), Some("later"));
    }

    #[test]
    fn the_properties_read_back_with_the_codec() {
        let mut bytes = Vec::new();
        let mut fields = Fields { buffer: &mut bytes, count: 0 };
        fields.product();
        let map: Map = serde_amqp::from_slice(&bytes).unwrap();
        assert_eq!(map.len(), 1);
    }
}
