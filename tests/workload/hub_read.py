#!/usr/bin/env python3
"""Reads so many events from the beginning of an event hub with the azure-eventhub package, and writes the bodies of each
partition, a line each, to DIR/p<partition>.ndjson. Sequence numbers must count from 0 without a gap.

    hub_read.py DIR EVENTS        with EVENT_HUB_CONNECTION_STRING in the environment
"""
import os, sys, threading
from azure.eventhub import EventHubConsumerClient


def main():
    directory, wanted = sys.argv[1], int(sys.argv[2])
    client = EventHubConsumerClient.from_connection_string(os.environ["EVENT_HUB_CONNECTION_STRING"], "$Default")
    bodies, lock, done = {}, threading.Lock(), threading.Event()

    def take(context, events):
        with lock:
            mine = bodies.setdefault(context.partition_id, [])
            for event in events:
                assert event.sequence_number == len(mine), (context.partition_id, event.sequence_number, len(mine))
                mine.append(b"".join(event.body))
            if sum(map(len, bodies.values())) >= wanted:
                done.set()

    def read():
        client.receive_batch(on_event_batch=take, starting_position="-1", max_wait_time=1, prefetch=1000, max_batch_size=1000)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    in_time = done.wait(max(120, wanted / 2_000))
    os.makedirs(directory, exist_ok=True)
    for partition, lines in bodies.items():
        with open(os.path.join(directory, f"p{partition}.ndjson"), "wb") as out:
            out.writelines(line + b"\n" for line in lines)
    print(f"read {sum(map(len, bodies.values()))}")
    # The client's threads take long to end, and everything is written.
    sys.stdout.flush()
    os._exit(0 if in_time else 1)


if __name__ == "__main__":
    main()
