//! The control port: the switches of [`Control`] for those who are in another process.
//!
//! A client sends lines and gets one line for each: `ok`, often with a number behind it, or `error` with the reason.
//! `*` stands for all partitions, durations are milliseconds.
//!
//! | line | does |
//! |---|---|
//! | `detach PARTITION CONDITION` | [`detach`](crate::Control::detach) |
//! | `cut` | [`cut`](crate::Control::cut) |
//! | `away MS` | [`away`](crate::Control::away) |
//! | `delay MS` | [`delay`](crate::Control::delay) |
//! | `throttle EVENTS_PER_SECOND`, `throttle off` | [`throttle`](crate::Control::throttle) |
//! | `busy producers MS`, `busy receivers MS`, `busy all MS` | [`busy`](crate::Control::busy) |
//! | `redeliver PARTITION FROM TO` | [`redeliver`](crate::Control::redeliver) |
//! | `drop PARTITION FROM TO` | [`drop_range`](crate::Control::drop_range) |
//! | `expire PARTITION BEFORE` | [`expire`](crate::Control::expire) |
//! | `partitions COUNT` | [`set_partitions`](crate::Control::set_partitions) |
//! | `clock MS`, `clock off` | [`clock`](crate::Control::clock) |
//! | `recreate` | [`recreate`](crate::Control::recreate) |
//! | `silence PARTITION on`, `silence PARTITION off` | [`silence`](crate::Control::silence) |
//! | `append PARTITION TEXT` | [`append`](crate::Control::append), the rest of the line being the body |
//! | `statistics` | [`statistics`](crate::Control::statistics), as `name=number` words |

use crate::broker::stopped;
use crate::control::Control;
use crate::switches::Busy;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The longest line.
const MAX_LINE: u64 = 2 * 1024 * 1024;

pub(crate) async fn accept(control: Control, listener: TcpListener, mut stopping: watch::Receiver<bool>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    clients.spawn(serve(control.clone(), stream));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            () = stopped(&mut stopping) => return,
            Some(_) = clients.join_next(), if !clients.is_empty() => {}
        }
    }
}

async fn serve(control: Control, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut stream).take(MAX_LINE).read_until(b'\n', &mut line).await?;
        if line.pop() != Some(b'\n') {
            return Ok(());
        }
        let answer = match obey(&control, String::from_utf8_lossy(&line).trim_end_matches('\r')) {
            Ok(answer) if answer.is_empty() => "ok\n".to_owned(),
            Ok(answer) => format!("ok {answer}\n"),
            Err(reason) => format!("error {}\n", reason.replace(['\r', '\n'], " ")),
        };
        stream.write_all(answer.as_bytes()).await?;
    }
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("'{word}' is no number that fits here"))
}

fn partition(word: &str) -> Result<Option<usize>, String> {
    if word == "*" { Ok(None) } else { number(word).map(Some) }
}

fn milliseconds(word: &str) -> Result<Duration, String> {
    number(word).map(|milliseconds: u32| Duration::from_millis(milliseconds.into()))
}

/// Does what a line says.
fn obey(control: &Control, line: &str) -> Result<String, String> {
    let told = |error: crate::Error| error.to_string();
    let done = || Ok(String::new());
    if let Some((index, body)) = line.strip_prefix("append ").and_then(|rest| rest.split_once(' ')) {
        return control.append(number(index)?, [body]).map(|next| next.to_string()).map_err(told);
    }
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["detach", index, condition] => {
            control.detach(partition(index)?, condition).map(|links| links.to_string()).map_err(told)
        }
        ["cut"] => Ok(control.cut().to_string()),
        ["away", time] => {
            control.away(milliseconds(time)?);
            done()
        }
        ["delay", time] => {
            control.delay(milliseconds(time)?);
            done()
        }
        ["throttle", rate] => {
            control.throttle(if rate == "off" { None } else { Some(number(rate)?) });
            done()
        }
        ["busy", who, time] => {
            let who = match who {
                "producers" => Busy::Producers,
                "receivers" => Busy::Receivers,
                "all" => Busy::All,
                _ => return Err(format!("'{who}' is neither producers, receivers nor all")),
            };
            control.busy(who, milliseconds(time)?);
            done()
        }
        ["redeliver", index, from, to] => {
            let links = control.redeliver(number(index)?, number(from)?, number(to)?);
            links.map(|links| links.to_string()).map_err(told)
        }
        ["drop", index, from, to] => {
            control.drop_range(number(index)?, number(from)?, number(to)?).map_err(told)?;
            done()
        }
        ["expire", index, before] => {
            control.expire(number(index)?, number(before)?).map_err(told)?;
            done()
        }
        ["partitions", count] => {
            control.set_partitions(number(count)?).map_err(told)?;
            done()
        }
        ["clock", at] => {
            control.clock(if at == "off" { None } else { Some(number(at)?) });
            done()
        }
        ["recreate"] => {
            control.recreate();
            done()
        }
        ["silence", index, state @ ("on" | "off")] => {
            control.silence(partition(index)?, state == "on").map_err(told)?;
            done()
        }
        ["statistics"] => Ok(statistics(control)),
        _ => Err(format!("'{line}' is no command")),
    }
}

fn statistics(control: &Control) -> String {
    let found = control.statistics();
    let mut line = format!(
        "events_in={} events_out={} connections={} connections_ever={}",
        found.events_in, found.events_out, found.connections, found.connections_ever
    );
    for (index, partition) in found.partitions.iter().enumerate() {
        let last = partition.last_sequence.map_or(-1, |last| i64::try_from(last).unwrap_or(i64::MAX));
        // Writing to a string cannot fail.
        let _ = write!(
            line,
            " first_{index}={} last_{index}={last} receivers_{index}={}",
            partition.first_sequence, partition.receivers
        );
    }
    line
}
