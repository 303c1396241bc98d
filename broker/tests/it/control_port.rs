//! The switches for those who are in another process.

use crate::support::{Client, FROM_START, end_of, options, sequences, soon, start};
use fe2o3_amqp_types::messaging::Body;
use fe2o3_amqp_types::primitives::Value;
use std::time::Duration;
use tidemark_broker::BrokerOptions;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

#[tokio::test]
async fn lines_do_what_the_switches_do_and_nonsense_is_refused() {
    let control = Some(([127, 0, 0, 1], 0).into());
    let broker = start(BrokerOptions { require_tokens: false, control, ..options() }).await;
    let stream = soon("connecting", TcpStream::connect(broker.control_addr().unwrap())).await.unwrap();
    let mut stream = BufReader::new(stream);
    let mut say = async |line: &str| {
        stream.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon("an answer", stream.read_line(&mut answer)).await.unwrap();
        answer.trim_end().to_owned()
    };
    assert_eq!(say("append 0 p0 e0").await, "ok 1");
    assert_eq!(say("append 0 p0 e1").await, "ok 2");
    let mut client = Client::connect(&broker).await;
    let mut receiver = client.receiver(0, FROM_START).await;
    assert_eq!(sequences(&mut receiver, 0, 2).await, [0, 1]);
    assert_eq!(say("redeliver 0 0 0").await, "ok 1");
    assert_eq!(sequences(&mut receiver, 0, 1).await, [0]);
    let counts = say("statistics").await;
    assert!(counts.starts_with("ok events_in=2 events_out=3 connections=1 connections_ever=1 first_0=0 last_0=1"));
    assert!(counts.ends_with("last_1=-1 receivers_1=0"), "{counts}");
    for done in
        ["delay 1", "delay 0", "throttle 5", "throttle off", "busy producers 0", "silence * on", "silence * off"]
    {
        assert_eq!(say(done).await, "ok");
    }
    assert_eq!(say("silence 0 on").await, "ok");
    assert_eq!(say("append 0 p0 e2").await, "ok 3");
    assert!(tokio::time::timeout(Duration::from_millis(50), receiver.recv::<Body<Value>>()).await.is_err());
    assert_eq!(say("silence 0 off").await, "ok");
    assert_eq!(sequences(&mut receiver, 0, 1).await, [2]);
    for done in ["partitions 3", "clock 1700000000000", "clock off"] {
        assert_eq!(say(done).await, "ok");
    }
    assert_eq!(say("append 2 p2 e0").await, "ok 1");
    for done in ["drop 1 0 5", "expire 0 1", "recreate", "away 0"] {
        assert_eq!(say(done).await, "ok");
    }
    end_of(&mut receiver).await;
    for nonsense in [
        "",
        "detach 7 x",
        "redeliver 0 5 1",
        "throttle x",
        "busy nobody 1",
        "silence 0 maybe",
        "away -1",
        "partitions 1",
        "clock x",
    ] {
        assert!(say(nonsense).await.starts_with("error "), "{nonsense}");
    }
    assert_eq!(say("detach * amqp:internal-error").await, "ok 0");
    assert_eq!(say("cut").await.split(' ').next(), Some("ok"));
}
