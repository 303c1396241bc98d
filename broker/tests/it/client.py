"""Sends, receives and provokes with Python's Event Hubs client. Each line says what held."""

import socket
import sys
import threading

from azure.eventhub import EventData, EventHubConsumerClient, EventHubProducerClient
from azure.eventhub.exceptions import AuthenticationError, ConnectError

CONNECTION, CONTROL = sys.argv[1], int(sys.argv[2])


def switch(line):
    with socket.create_connection(("127.0.0.1", CONTROL)) as control:
        control.sendall(line.encode() + b"\n")
        answer = control.makefile().readline().strip()
    assert answer.startswith("ok"), answer
    return answer


def receive(count, partition, position, inclusive=False, newest=None):
    """The first events from a position on, as (sequence number, event). `newest` asks for the newest event with each."""
    consumer = EventHubConsumerClient.from_connection_string(CONNECTION, consumer_group="$Default")
    found, problems, done = [], [], threading.Event()

    def take(context, events):
        if newest is not None and events:
            newest.append(context.last_enqueued_event_properties)
        found.extend((event.sequence_number, event) for event in events)
        if len(found) >= count:
            done.set()

    worker = threading.Thread(
        target=consumer.receive_batch,
        kwargs={
            "on_event_batch": take,
            "on_error": lambda _context, error: problems.append(error),
            "partition_id": partition,
            "starting_position": position,
            "starting_position_inclusive": inclusive,
            "max_wait_time": 1,
            "track_last_enqueued_event_properties": newest is not None,
        },
        daemon=True,
    )
    worker.start()
    assert done.wait(60), (len(found), problems)
    consumer.close()
    return found[:count]


def sends():
    with EventHubProducerClient.from_connection_string(CONNECTION) as producer:
        assert producer.get_eventhub_properties()["partition_ids"] == ["0", "1"]
        batch = producer.create_batch(partition_id="0")
        for number in range(500):
            event = EventData(f"p0 e{number}")
            event.properties = {"number": number}
            batch.add(event)
        producer.send_batch(batch)
        keyed = producer.create_batch(partition_key="user-42")
        keyed.add(EventData("keyed"))
        producer.send_batch(keyed)
        large = producer.create_batch(partition_id="0")
        large.add(EventData("x" * 900_000))
        producer.send_batch(large)
        properties = producer.get_partition_properties("0")
    assert properties["last_enqueued_sequence_number"] == 500, properties
    print("ok sends")


def receives():
    found = receive(501, "0", "-1")
    assert [number for number, _ in found] == list(range(501))
    assert all(event.body_as_str() == f"p0 e{number}" for number, event in found[:500])
    assert found[7][1].properties == {b"number": 7}
    assert len(found[500][1].body_as_str()) == 900_000
    print("ok receives")
    # 1867 % 2: the partition that the service would choose.
    keyed = receive(1, "1", 999)[0]
    assert keyed[0] == 1000 and keyed[1].partition_key == b"user-42" and keyed[1].body_as_str() == "keyed"
    assert [number for number, _ in receive(3, "1", 42)] == [43, 44, 45]
    assert [number for number, _ in receive(1, "1", found[0][1].enqueued_time, True)] == [1000]
    print("ok resumes")


def names_the_newest():
    newest = []
    last = receive(501, "0", "-1", newest=newest)[-1][1]
    with EventHubProducerClient.from_connection_string(CONNECTION) as producer:
        properties = producer.get_partition_properties("0")
    named = newest[-1]
    assert named["sequence_number"] == properties["last_enqueued_sequence_number"] == 500, newest
    assert named["offset"] == properties["last_enqueued_offset"] == last.offset, newest
    assert named["enqueued_time"] == last.enqueued_time and named["retrieval_time"] >= last.enqueued_time, newest
    unasked = receive(1, "0", 499)[0][1]
    assert not unasked._message.delivery_annotations
    print("ok names the newest event to those who ask")


def buffers():
    """Keys that the client deals to partitions by itself."""
    told, failed = [], []
    with EventHubProducerClient.from_connection_string(
        CONNECTION,
        buffered_mode=True,
        on_success=lambda events, partition: told.append((partition, len(events))),
        on_error=lambda events, partition, error: failed.append(error),
    ) as producer:
        for number in range(100):
            producer.send_event(EventData(f"buffered {number}"), partition_key=f"user-{number % 7}")
        producer.send_event(EventData("no key"))
        producer.send_event(EventData("p1"), partition_id="1")
        producer.flush()
    assert not failed and sum(count for _, count in told) == 102, (told, failed)
    statistics = dict(word.split("=") for word in switch("statistics").split()[1:])
    for partition, first in (("0", 502), ("1", 1001)):
        for _, event in receive(int(statistics[f"last_{partition}"]) - first + 1, partition, first - 1):
            body = event.body_as_str()
            if body.startswith("buffered "):
                assert event.partition_key == f"user-{int(body.split()[1]) % 7}".encode(), body
    print("ok buffers events with keys, which stay")


def grows():
    switch("partitions 3")
    with EventHubProducerClient.from_connection_string(CONNECTION) as producer:
        assert producer.get_eventhub_properties()["partition_ids"] == ["0", "1", "2"]
        producer.send_event(EventData("p2 e0"), partition_id="2")
    assert [event.body_as_str() for _, event in receive(1, "2", "-1")] == ["p2 e0"]
    print("ok takes up a partition that was added")


def faults():
    before = receive(20, "1", "-1")
    assert [number for number, _ in before] == list(range(20))
    switch("busy producers 300")
    with EventHubProducerClient.from_connection_string(CONNECTION, retry_total=8) as producer:
        producer.send_event(EventData("p0 e501"), partition_id="0")
    assert [number for number, _ in receive(1, "0", 500)] == [501]
    print("ok retries while the broker is busy")
    switch("cut")
    assert [number for number, _ in receive(5, "1", 500)] == [501, 502, 503, 504, 505]
    print("ok lives on after a cut")


def refusals():
    wrong = CONNECTION.replace("SharedAccessKey=SAS", "SharedAccessKey=WRONG")
    with EventHubProducerClient.from_connection_string(wrong, retry_total=0) as producer:
        try:
            producer.get_eventhub_properties()
        except (AuthenticationError, ConnectError) as error:
            assert "InvalidSignature" in str(error) or "401" in str(error), error
            print("ok refuses a wrong key")


sends()
receives()
names_the_newest()
faults()
buffers()
grows()
refusals()
