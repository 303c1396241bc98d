//! The hub: what all connections share.

use crate::log::{Bounds, Log};
use crate::options::{BrokerOptions, DEFAULT_CONSUMER_GROUP, MAX_PARTITIONS};
use crate::switches::Switches;
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// The largest message, and the largest batch, as Event Hubs has it.
pub(crate) const MAX_MESSAGE: usize = 1024 * 1024;
/// Condition of a broker that has too much to do.
pub(crate) const SERVER_BUSY: &str = "com.microsoft:server-busy";
/// Receivers without owner level that a consumer group may have on one partition, as Event Hubs has it.
const MAX_READERS: usize = 5;

/// Why the broker detaches a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) condition: String,
    pub(crate) description: String,
}

impl Cause {
    pub(crate) fn new(condition: impl Into<String>, description: impl Into<String>) -> Self {
        Self { condition: condition.into(), description: description.into() }
    }

    pub(crate) fn busy() -> Self {
        Self::new(SERVER_BUSY, "The server is busy. Please retry the operation.")
    }

    pub(crate) fn stolen(epoch: i64) -> Self {
        let description = format!(
            "New receiver with higher epoch of '{epoch}' is created hence current receiver is getting disconnected."
        );
        Self::new("amqp:link:stolen", description)
    }
}

/// What the broker wants of a connection.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    /// End it as if the network had.
    Cut,
    /// Close it in the way of AMQP.
    Close,
    /// Detach the receiver links of a partition, or of all.
    Detach(Option<usize>, Cause),
    /// Detach one link.
    DetachLink(u64, Cause),
    /// Send events again, on each receiver link of a partition.
    Redeliver { partition: usize, from: u64, to: u64 },
}

/// The broker's side of a connection, for those who are not the connection.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    orders: Mutex<VecDeque<Order>>,
    wake: Notify,
}

impl Peer {
    pub(crate) fn order(&self, order: Order) {
        self.orders.lock().push_back(order);
        self.wake.notify_one();
    }

    /// Something may have changed for a link of the connection.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(crate) fn take_order(&self) -> Option<Order> {
        self.orders.lock().pop_front()
    }
}

/// A receiver link, for other receivers of the same consumer group.
#[derive(Debug)]
struct Reader {
    link: u64,
    group: String,
    epoch: Option<i64>,
    peer: Arc<Peer>,
}

/// A partition.
#[derive(Debug, Default)]
pub(crate) struct Partition {
    pub(crate) log: RwLock<Log>,
    readers: Mutex<Vec<Reader>>,
    /// Sequence numbers that are never delivered.
    pub(crate) dropped: RwLock<Vec<(u64, u64)>>,
    /// Nothing is delivered, and nobody is told.
    pub(crate) silent: AtomicBool,
}

impl Partition {
    /// Takes a receiver in, and displaces those of lower levels.
    pub(crate) fn join(&self, link: u64, group: &str, epoch: Option<i64>, peer: &Arc<Peer>) -> Result<(), Cause> {
        let mut readers = self.readers.lock();
        let others = || readers.iter().filter(|reader| reader.group == group);
        let owner = others().filter_map(|reader| reader.epoch).max();
        match (epoch, owner) {
            (Some(epoch), Some(owner)) if epoch < owner => {
                return Err(Cause::new(
                    "amqp:link:stolen",
                    format!(
                        "Receiver '{link}' with epoch '{epoch}' cannot be created: at least one receiver for the endpoint \
                         is created with epoch of '{owner}'."
                    ),
                ));
            }
            (None, Some(owner)) => {
                return Err(Cause::new(
                    "amqp:link:stolen",
                    format!(
                        "At least one receiver for the endpoint is created with epoch of '{owner}', and so non-epoch \
                         receiver is not allowed. Either reconnect with a higher epoch, or make sure all epoch receivers \
                         are closed or disconnected."
                    ),
                ));
            }
            (None, None) if others().count() >= MAX_READERS => {
                return Err(Cause::new(
                    "amqp:resource-limit-exceeded",
                    format!(
                        "Exceeded the maximum number of allowed receivers per partition in a consumer group which is {MAX_READERS}."
                    ),
                ));
            }
            _ => {}
        }
        if let Some(epoch) = epoch {
            readers.retain(|reader| {
                let displaced = reader.group == group;
                if displaced {
                    reader.peer.order(Order::DetachLink(reader.link, Cause::stolen(epoch)));
                }
                !displaced
            });
        }
        readers.push(Reader { link, group: group.to_owned(), epoch, peer: Arc::clone(peer) });
        Ok(())
    }

    /// A receiver is gone; its level with it.
    pub(crate) fn leave(&self, link: u64) {
        self.readers.lock().retain(|reader| reader.link != link);
    }

    pub(crate) fn readers(&self) -> usize {
        self.readers.lock().len()
    }

    /// Gives an order to each connection that has a receiver here. Answers how many receivers that concerns.
    pub(crate) fn order(&self, order: &Order) -> usize {
        let readers = self.readers.lock();
        let mut peers: Vec<&Arc<Peer>> = readers.iter().map(|reader| &reader.peer).collect();
        peers.sort_by_key(|peer| Arc::as_ptr(peer));
        peers.dedup_by(|a, b| Arc::ptr_eq(a, b));
        peers.into_iter().for_each(|peer| peer.order(order.clone()));
        readers.len()
    }

    pub(crate) fn wake(&self) {
        self.readers.lock().iter().for_each(|reader| reader.peer.wake());
    }

    pub(crate) fn is_dropped(dropped: &[(u64, u64)], sequence: u64) -> bool {
        dropped.iter().any(|(from, to)| (*from..=*to).contains(&sequence))
    }
}

/// The hub.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) options: BrokerOptions,
    /// As many as there may ever be, so that links can hold on to those that there are while others are added.
    places: Box<[Partition]>,
    /// How many of them the hub has.
    count: AtomicUsize,
    pub(crate) switches: Switches,
    /// Changes when the hub is recreated; milliseconds since 1970.
    created: AtomicI64,
    turn: AtomicUsize,
    peers: Mutex<HashMap<u64, Arc<Peer>>>,
    ids: AtomicU64,
    pub(crate) events_in: AtomicU64,
    pub(crate) events_out: AtomicU64,
    pub(crate) connections: AtomicU64,
}

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Hub {
    pub(crate) fn new(options: BrokerOptions) -> Self {
        Self {
            places: (0..MAX_PARTITIONS).map(|_| Partition::default()).collect(),
            count: AtomicUsize::new(options.partitions.min(MAX_PARTITIONS)),
            options,
            switches: Switches::default(),
            created: AtomicI64::new(now()),
            turn: AtomicUsize::new(0),
            peers: Mutex::default(),
            ids: AtomicU64::new(0),
            events_in: AtomicU64::new(0),
            events_out: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        }
    }

    /// The partitions that there are.
    pub(crate) fn partitions(&self) -> &[Partition] {
        self.places.get(..self.count.load(Ordering::Acquire)).unwrap_or(&self.places)
    }

    /// Makes it `count` partitions. None if there are more already, or so many are not possible.
    pub(crate) fn grow(&self, count: usize) -> Option<()> {
        let grown = |now: usize| (now..=MAX_PARTITIONS).contains(&count).then_some(count);
        self.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, grown).ok().map(|_| ())
    }

    /// A number that no other connection or link has.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn created(&self) -> i64 {
        self.created.load(Ordering::Acquire)
    }

    pub(crate) fn has_group(&self, group: &str) -> bool {
        group.eq_ignore_ascii_case(DEFAULT_CONSUMER_GROUP)
            || self.options.consumer_groups.iter().any(|known| known.eq_ignore_ascii_case(group))
    }

    pub(crate) fn is_hub(&self, name: &str) -> bool {
        name.eq_ignore_ascii_case(&self.options.hub)
    }

    /// A partition by its id.
    pub(crate) fn partition_id(&self, id: &str) -> Option<usize> {
        // "+1" and "01" parse as numbers but are no ids.
        id.parse().ok().filter(|index: &usize| *index < self.partitions().len() && index.to_string() == id)
    }

    /// The partition of an event whose producer has chosen none.
    pub(crate) fn choose_partition(&self, key: Option<&str>) -> usize {
        match key {
            Some(key) => crate::partition_key::partition(key, self.partitions().len()),
            None => self.turn.fetch_add(1, Ordering::Relaxed) % self.partitions().len().max(1),
        }
    }

    /// Appends to a partition. Answers how many events that were.
    pub(crate) fn append(&self, index: usize, append: impl FnOnce(&mut Log, i64)) -> u64 {
        let Some(partition) = self.partitions().get(index) else { return 0 };
        let now = self.switches.clock().unwrap_or_else(now);
        let mut log = partition.log.write();
        let before = log.bounds().next;
        append(&mut log, now);
        log.retain(&self.options.retention, now);
        let appended = log.bounds().next - before;
        drop(log);
        self.events_in.fetch_add(appended, Ordering::Relaxed);
        partition.wake();
        appended
    }

    /// Forgets what is too old, and says where a partition begins and ends.
    pub(crate) fn bounds(&self, index: usize) -> Bounds {
        let Some(partition) = self.partitions().get(index) else { return Bounds { begin: 0, next: 0, last: None } };
        if self.options.retention.age.is_some() {
            partition.log.write().retain(&self.options.retention, now());
        }
        partition.log.read().bounds()
    }

    pub(crate) fn enter(&self, id: u64) -> Arc<Peer> {
        let peer = Arc::new(Peer::default());
        self.peers.lock().insert(id, Arc::clone(&peer));
        self.connections.fetch_add(1, Ordering::Relaxed);
        peer
    }

    pub(crate) fn exit(&self, id: u64) {
        self.peers.lock().remove(&id);
    }

    /// Gives an order to all connections. Answers how many there are.
    pub(crate) fn order(&self, order: &Order) -> usize {
        let peers = self.peers.lock();
        peers.values().for_each(|peer| peer.order(order.clone()));
        peers.len()
    }

    pub(crate) fn open_connections(&self) -> usize {
        self.peers.lock().len()
    }

    pub(crate) fn wake_all(&self) {
        self.peers.lock().values().for_each(|peer| peer.wake());
    }

    /// Forgets everything and begins again, as a hub does that was deleted and created.
    pub(crate) fn recreate(&self) {
        let created = now().max(self.created() + 1);
        self.created.store(created, Ordering::Release);
        for partition in self.partitions() {
            *partition.log.write() = Log::default();
            partition.dropped.write().clear();
        }
        self.turn.store(0, Ordering::Relaxed);
        let cause = Cause::new("amqp:link:detach-forced", "The messaging entity was deleted and created again.");
        self.order(&Order::Detach(None, cause));
    }
}
