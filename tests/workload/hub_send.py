#!/usr/bin/env python3
"""Sends files of events to an event hub with the azure-eventhub package: the lines of the n-th file, in the order of
their names, to partition n; or all to one partition.

    hub_send.py [--partition P] FILE...        with EVENT_HUB_CONNECTION_STRING in the environment
"""
import argparse, os, time
from azure.eventhub import EventData, EventHubProducerClient
from azure.eventhub.exceptions import EventHubError


def send(client, batch):
    # The client tries again by itself, and gives up after some seconds; a broker may be away for longer.
    for attempt in range(20):
        try:
            return client.send_batch(batch)
        except EventHubError:
            if attempt == 19:
                raise
            time.sleep(0.5)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--partition")
    a.add_argument("files", nargs="+")
    o = a.parse_args()
    client = EventHubProducerClient.from_connection_string(os.environ["EVENT_HUB_CONNECTION_STRING"])
    sent = 0
    with client:
        for index, path in enumerate(sorted(o.files)):
            partition = str(index) if o.partition is None else o.partition
            batch = create(client, partition)
            for line in open(path, "rb"):
                event = EventData(line.rstrip(b"\n"))
                try:
                    batch.add(event)
                except ValueError:                   # it is full
                    send(client, batch)
                    batch = create(client, partition)
                    batch.add(event)
                sent += 1
            send(client, batch)
    print(f"sent {sent}")


def create(client, partition):
    # Asks the event hub for the size of a batch, and so may fail as sending does.
    for attempt in range(20):
        try:
            return client.create_batch(partition_id=partition)
        except EventHubError:
            if attempt == 19:
                raise
            time.sleep(0.5)


if __name__ == "__main__":
    main()
