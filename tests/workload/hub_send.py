#!/usr/bin/env python3
"""Sends files of events to an event hub with the azure-eventhub package: the lines of the n-th file, in the order of
their names, to partition n.

    hub_send.py FILE...        with EVENT_HUB_CONNECTION_STRING in the environment
"""
import os, sys
from azure.eventhub import EventData, EventHubProducerClient


def main():
    client = EventHubProducerClient.from_connection_string(os.environ["EVENT_HUB_CONNECTION_STRING"])
    sent = 0
    with client:
        for partition, path in enumerate(sorted(sys.argv[1:])):
            batch = client.create_batch(partition_id=str(partition))
            for line in open(path, "rb"):
                event = EventData(line.rstrip(b"\n"))
                try:
                    batch.add(event)
                except ValueError:                   # it is full
                    client.send_batch(batch)
                    batch = client.create_batch(partition_id=str(partition))
                    batch.add(event)
                sent += 1
            client.send_batch(batch)
    print(f"sent {sent}")


if __name__ == "__main__":
    main()
