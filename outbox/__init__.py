"""Reliable messaging over NATS JetStream: envelope, outbox, inbox, relay, intake, topology.

This package keeps the first promise of Amends, *nothing is lost and nothing happens twice*, for any
service that owns a database. It knows nothing of sagas. Read it in this order:

- `contracts`      what a command, a reply and a domain event are (pydantic only)
- `envelope`       how they look on the wire (CloudEvents 1.0)
- `bulk`           any number of rows in one statement
- `unit_of_work`   one transaction that writes the change and the messages that speak of it
- `relay`          takes committed messages to the broker
- `intake`, `pump` take messages from the broker through a transaction, and acknowledge after it
- `suspects`       which messages do harm, and which only come again
- `dead_letters`   those that could not be handled: sent once more, or dropped
- `outages`        what is out of reach, said once; `health` tells it
- `topology`       the streams and consumers, checked and rebuilt by us
- `service`        the four of them as one running role
"""
