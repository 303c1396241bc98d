//! The members of an event, and their bytes.
//!
//! Numbers and times are written by hand into one buffer: this runs for every generated event, and formatting
//! machinery would cost several times what all the rest does.

use tidemark_dataflows::event::{Channel, END_OF_TIME, EventType, Micros, Offset, PartitionId};

use super::faults::{self, Member, Shape};
use super::plan::{Kind, Purpose};
use super::{EventGenerator, MAX_EVENT_BYTES};

/// Time from the transaction to the arrival of its event, in microseconds.
const TRAVEL: u64 = 250_000;

/// Greatest delay of a disordered event, in microseconds: five minutes.
const MAX_DISORDER: u64 = 300_000_000;

/// Least distance of a late event behind the watermark delay, in microseconds: one hour. A watermark trails the newest
/// event by up to an epoch, so an epoch that spans more than that may find such an event in time.
const LATE_MARGIN: u64 = 3_600_000_000;

/// How much further back late events are spread, in microseconds: twelve hours.
const LATE_SPREAD: u64 = 12 * 3_600_000_000;

/// Smallest amount in pence, and how many different amounts there are: 5.00 to 500.00.
const MIN_PENCE: u64 = 500;
const AMOUNTS: u64 = 49_501;

struct Members {
    event_id: u128,
    user: u64,
    event_time: Micros,
    ingest_time: Micros,
    event_type: EventType,
    pence: u64,
    channel: Channel,
}

impl EventGenerator {
    /// Appends the body of the original at `offset`, which is of this `kind`.
    pub(super) fn write_original(&self, partition: PartitionId, offset: Offset, kind: Kind, out: &mut Vec<u8>) {
        out.reserve(MAX_EVENT_BYTES);
        match kind {
            Kind::Ordinary | Kind::Disordered | Kind::Late => {
                self.members(partition, offset, kind).write(None, out);
            }
            Kind::Conflicting(original) => {
                let mut members = self.members(partition, original, self.plan(partition, original).kind);
                members.pence += 1;
                members.write(None, out);
            }
            Kind::Invalid(reason) => {
                let members = self.members(partition, offset, kind);
                let shapes = faults::shapes(reason);
                let chosen = self.draws(Purpose::Shape, partition, offset).below(shapes.len() as u64);
                let start = out.len();
                let shape = shapes.get(chosen as usize).copied();
                members.write(shape, out);
                faults::apply_to_whole(shape, out, start);
            }
        }
    }

    fn members(&self, partition: PartitionId, offset: Offset, kind: Kind) -> Members {
        let mut draws = self.draws(Purpose::Members, partition, offset);
        let event_id = u128::from(draws.next()) << 64 | u128::from(draws.next());
        let choice = draws.next();
        let due = self.due_time(partition, offset);
        let behind = match kind {
            Kind::Disordered => TRAVEL + 1 + draws.below(MAX_DISORDER),
            Kind::Late => {
                let delay = self.options().watermark_delay.0.unsigned_abs();
                delay.saturating_add(LATE_MARGIN + draws.below(LATE_SPREAD))
            }
            _ => TRAVEL,
        };
        Members {
            event_id,
            user: 1 + draws.below(u64::from(self.options().users)),
            event_time: before(due, behind),
            ingest_time: before(due, draws.below(TRAVEL)),
            event_type: EventType::ALL[(choice & 1) as usize],
            pence: MIN_PENCE + draws.below(AMOUNTS),
            channel: Channel::ALL[(((choice >> 32) * 3) >> 32) as usize],
        }
    }

    /// When the event at `offset` is due: it arrives then.
    fn due_time(&self, partition: PartitionId, offset: Offset) -> Micros {
        let index = self.index_in_stream(partition, offset);
        let rate = self.options().rate;
        // In two steps, as the product of index and 10^6 may not fit. What saturates lies past the end of time.
        let seconds = (index / rate).saturating_mul(1_000_000);
        let elapsed = seconds.saturating_add(index % rate * 1_000_000 / rate);
        Micros(self.options().start.0.saturating_add_unsigned(elapsed).min(END_OF_TIME.0 - 1))
    }
}

/// Not before 1970, which the contract does not admit.
fn before(instant: Micros, microseconds: u64) -> Micros {
    Micros(instant.0.saturating_sub_unsigned(microseconds).max(0))
}

impl Members {
    /// Appends the JSON object, with the member that `shape` names spoilt.
    fn write(&self, shape: Option<Shape>, out: &mut Vec<u8>) {
        let spoilt = |member: Member| match shape {
            Some(Shape::Missing(which)) if which == member => Some(None),
            Some(Shape::Value(which, value)) if which == member => Some(Some(value)),
            _ => None,
        };
        out.push(b'{');
        let start = out.len();
        for member in Member::ALL {
            let spoilt = spoilt(member);
            if spoilt == Some(None) {
                continue;
            }
            if out.len() > start {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(member.key());
            match spoilt {
                Some(Some(value)) => out.extend_from_slice(value),
                _ => self.write_value(member, out),
            }
        }
        out.push(b'}');
    }

    fn write_value(&self, member: Member, out: &mut Vec<u8>) {
        match member {
            Member::EventId => out.extend_from_slice(&uuid(self.event_id)),
            Member::UserId => {
                out.extend_from_slice(b"\"user_");
                push_number(out, self.user, 5);
                out.push(b'"');
            }
            Member::EventTime => out.extend_from_slice(&timestamp(self.event_time)),
            Member::IngestTime => out.extend_from_slice(&timestamp(self.ingest_time)),
            Member::EventType => push_quoted(out, self.event_type.as_str().as_bytes()),
            Member::Amount => {
                push_number(out, self.pence / 100, 1);
                out.push(b'.');
                push_number(out, self.pence % 100, 2);
            }
            Member::Currency => out.extend_from_slice(b"\"GBP\""),
            Member::Channel => push_quoted(out, self.channel.as_str().as_bytes()),
        }
    }
}

fn push_quoted(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(value);
    out.push(b'"');
}

/// Appends `value` with at least `width` digits.
fn push_number(out: &mut Vec<u8>, value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    let mut rest = value;
    while rest > 0 {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits[start.min(digits.len() - width)..]);
}

/// A version 4 UUID with these random bits, in quotes.
fn uuid(random: u128) -> [u8; 38] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = *b"\"------------------------------------\"";
    let mut bytes = random.to_be_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    // Hyphens stand before the bytes 4, 6, 8 and 10.
    for (index, byte) in bytes.into_iter().enumerate() {
        let at = 1 + 2 * index + (index.clamp(2, 10) - 2) / 2;
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
    }
    text
}

/// `"2026-01-01T10:00:00.123456+00:00"`, in quotes. For instants from 1970 to 9999, as [`before`] and `due_time` ensure.
fn timestamp(instant: Micros) -> [u8; 34] {
    let microseconds = instant.0.unsigned_abs();
    let seconds = microseconds / 1_000_000;
    let (year, month, day) = civil_date(seconds / 86_400);
    let mut text = *b"\"0000-00-00T00:00:00.000000+00:00\"";
    let mut put = |at: usize, pair: u64| {
        text[at] = b'0' + (pair / 10) as u8;
        text[at + 1] = b'0' + (pair % 10) as u8;
    };
    let fraction = microseconds % 1_000_000;
    put(1, year / 100);
    put(3, year % 100);
    put(6, month);
    put(9, day);
    put(12, seconds / 3600 % 24);
    put(15, seconds / 60 % 60);
    put(18, seconds % 60);
    put(21, fraction / 10_000);
    put(23, fraction / 100 % 100);
    put(25, fraction % 100);
    text
}

/// Year, month and day of a number of days since 1970-01-01, in the proleptic Gregorian calendar.
///
/// The year is counted from March, so that the leap day comes last (Hinnant, "chrono-compatible low-level date
/// algorithms").
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        for (instant, text) in [
            (0, "1970-01-01T00:00:00.000000+00:00"),
            (951_782_399_999_999, "2000-02-28T23:59:59.999999+00:00"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000+00:00"),
            (1_767_261_600_123_456, "2026-01-01T10:00:00.123456+00:00"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000+00:00"),
            (END_OF_TIME.0 - 1, "9999-12-31T23:59:59.999999+00:00"),
        ] {
            assert_eq!(timestamp(Micros(instant)), format!("\"{text}\"").as_bytes());
        }
    }

    #[test]
    fn uuids_and_numbers_have_their_shape() {
        let text = uuid(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        assert_eq!(&text, b"\"00112233-4455-4677-8899-aabbccddeeff\"");
        for (value, width, digits) in [(0, 1, "0"), (7, 2, "07"), (500, 5, "00500"), (1_234_567, 5, "1234567")] {
            let mut out = Vec::new();
            push_number(&mut out, value, width);
            assert_eq!(out, digits.as_bytes());
        }
    }
}
